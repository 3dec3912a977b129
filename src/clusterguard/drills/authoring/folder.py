"""A drill and its manifests as files: the texts, and writing all of them or none."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterguard.documents.writing import yaml_text
from clusterguard.drills.authoring.document import drill_text, on_one_line
from clusterguard.drills.authoring.stand_in import stand_in_for
from clusterguard.errors import ConfigError
from clusterguard.scratch import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.drills.authoring.document import Engine
    from clusterguard.drills.authoring.looking import Seen
    from clusterguard.drills.authoring.stand_in import Manifest, StandIn

__all__ = ["drill_files_of", "require_free", "write_files"]

_MANIFESTS: Final = "manifests"
_LARGEST: Final = 1 << 20  # characters of a file: a drill reads at most 4 MiB, and a person far less
_EVERYBODY_READS: Final = 0o644
_HEAD: Final = (
    "# What stands in for namespace {namespace} of {origin}, written by `clusterguard drill init`.\n"
    "# Every value of a Secret is made up. So is what elsewhere has the name or the form of a credential; one with\n"
    "# neither is not found: read this before you commit it.\n"
)
_DEFINITIONS_HEAD: Final = "# The definitions of the custom resources in namespace {namespace}, as {origin} had them.\n"


def drill_files_of(seen: Seen, *, engine: Engine, origin: str) -> tuple[dict[str, str], StandIn]:
    """Return the files of a drill, each text by its path, the drill last; and what stands in for the namespace.

    Args:
        seen: The namespace.
        engine: What backs it up and restores it.
        origin: The reference of the cluster that was looked at.
    """
    stand_in = stand_in_for(seen)
    named = {"namespace": seen.namespace, "origin": origin}
    files: dict[str, str] = {}
    files |= _in_files(f"{seen.namespace}-definitions", _DEFINITIONS_HEAD.format(**named), stand_in.definitions)
    files |= _in_files(seen.namespace, _HEAD.format(**named), stand_in.objects)
    pods = dict(_in_files(f"{seen.namespace}-pods", _HEAD.format(**named), stand_in.pods))
    text = drill_text(seen, stand_in, engine=engine, origin=origin, files=list(files), pods=list(pods))
    return {**files, **pods, f"{seen.namespace}.drill.yaml": text}, stand_in


def _in_files(name: str, head: str, manifests: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    """Yield manifests as files that are not too large, each with its path."""
    texts = [head] if manifests else []
    for manifest in manifests:
        text = _text_of(manifest)
        if len(texts[-1]) > len(head) and len(texts[-1]) + len(text) > _LARGEST:
            texts.append(head)
        texts[-1] += text
    for number, text in enumerate(texts, start=1):
        yield f"{_MANIFESTS}/{name}{f'-{number}' if number > 1 else ''}.yaml", text


def _text_of(manifest: Manifest) -> str:
    notes = "".join(f"# {on_one_line(note)}\n" for note in manifest.notes)
    return f"---\n{notes}{yaml_text([manifest.item])}"


def require_free(folder: Path, *, force: bool) -> None:
    """Refuse a folder that has something in it.

    Args:
        folder: Where the drill will be.
        force: Whether its files may be replaced.

    Raises:
        ConfigError: It is none, or not empty (``file-exists``).
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="name a new one")
    taken = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    if taken and not force:
        raise ConfigError(
            f"{folder} has something in it: {', '.join(taken[:3])}",
            code="file-exists",
            fields={"files": taken},
            hint="name another folder, or replace the files of this drill there with --force",
        )


def write_files(folder: Path, files: Mapping[str, str]) -> tuple[Path, ...]:
    """Write files into a folder: a new one is there with all of them or not at all; in another each is replaced whole.

    Args:
        folder: It may have other files in it, which stay.
        files: Texts by their paths in it, in the order in which they may be replaced.

    Returns:
        Their paths.

    Raises:
        OSError: They cannot be written.
    """
    whole = folder.absolute()
    if whole.is_dir():
        _write_each(whole, files)
    else:
        whole.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{whole.name}.", dir=whole.parent))
        try:
            _write_each(new, files)
            new.chmod(0o755)
            new.replace(whole)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return tuple(folder / name for name in files)


def _write_each(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with replacing(path, mode=_EVERYBODY_READS) as file:
            file.write(text.encode())
