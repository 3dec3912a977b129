"""Pages for people: one HTML file each, no script, nothing from elsewhere, for screens light and dark, and paper.

Every text in them is escaped: names and errors come from files and servers, and some of them mean harm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.model.durations import format_duration
from clusterguard.scratch import replacing

__all__ = ["page_environment", "write_text"]

_MODE: Final = 0o644


def page_environment(package: str) -> Any:  # noqa: ANN401 - imported late, for those who have not installed it
    """Return the templates of a package, which may extend ``page.html.j2``, with the filters that pages share.

    Raises:
        ConfigError: The extra `policy` is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("pages need jinja2", hint="pip install 'clusterguard[policy]'") from error
    folders = [jinja2.PackageLoader(name, "templates") for name in (package, "clusterguard.documents")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": lambda seconds: "-" if seconds is None else format_duration(seconds),
        "moment": lambda moment: "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC",
        "slug": lambda verdict: verdict.lower().replace(" ", "-"),
    }
    return environment


def write_text(path: Path | str, page: str) -> None:
    """Write a page in the place of an earlier one; atomically.

    Raises:
        ClusterGuardError: It cannot be written there.
    """
    target = Path(path).expanduser()
    try:
        with replacing(target, mode=_MODE) as file:
            file.write(page.encode())
    except OSError as error:
        raise ClusterGuardError(
            f"{target}: {error.strerror}", hint=f"let this user write in {target.parent}"
        ) from error
