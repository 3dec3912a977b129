"""``go build`` of the pinned modules: one invocation for all programs of a set."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard import process
from clusterguard.errors import ProgramError, ToolchainError
from clusterguard.model.progress import Progress, ProgressSink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clusterguard.toolchain.golang import Go
    from clusterguard.toolchain.programs import ModuleSet, Program

__all__ = ["build", "build_key", "needed_go"]

_GO_LINE = re.compile(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", re.MULTILINE)
_MAJOR_SUFFIX = re.compile(r"/v\d+$")
_TO_COMPILE = "to compile: "
# "not installed but available in build cache" is said of finished programs: nothing remains to be done.
_STALE = (
    '{{if and .Stale (ne .StaleReason "not installed but available in build cache")}}'
    f"{_TO_COMPILE}{{{{.ImportPath}}}}{{{{end}}}}"
)
_FETCHING = "go: downloading "


def needed_go(modules: ModuleSet) -> tuple[int, int, int]:
    """Return the oldest Go version that compiles the set, as its go.mod says."""
    match = _GO_LINE.search(_pinned(modules)["go.mod"])
    if match is None:
        raise ToolchainError(f"modules/{modules.name}/go.mod has no go line")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def build_key(modules: ModuleSet) -> str:
    """Return what names a build in the cache: the version and a digest of all that is pinned."""
    pinned = "\0".join([*_pinned(modules).values(), modules.ldflags, *modules.flags])
    return f"{modules.version}-{hashlib.sha256(pinned.encode()).hexdigest()[:12]}"


def build(
    programs: Sequence[Program], *, go: Go, platform: str, scratch: Path, progress: ProgressSink
) -> dict[str, Path]:
    """Compile programs of one module set and return each one's file in the scratch directory.

    Go keeps what it compiled in its own cache (GOCACHE), so a build that was killed goes on where it was.
    """
    modules = programs[0].modules
    work = scratch / "module"
    work.mkdir()
    for name, text in _pinned(modules).items():
        (work / name).write_text(text, encoding="utf-8")
    try:
        _compile(programs, go=go, env=_environment(go, platform), work=work, progress=progress)
    except ProgramError as error:
        names = ", ".join(program.name for program in programs)
        raise ToolchainError(
            f"{names}: building {modules.name} {modules.version} failed: {error}",
            code="build-failed",
            fields={"module": modules.name, "version": modules.version, "output": error.output},
            hint="Go fetches modules through GOPROXY (go env GOPROXY) and keeps its work in GOCACHE;"
            " check that the one can be reached and that there is room for the other",
        ) from error
    return {program.name: work / "bin" / _output_name(program) for program in programs}


def _compile(
    programs: Sequence[Program], *, go: Go, env: Mapping[str, str], work: Path, progress: ProgressSink
) -> None:
    packages = [program.package for program in programs]
    # The very same flags for list and build: what is stale depends on them.
    modules = programs[0].modules
    flags = ["-mod=readonly", "-buildvcs=false", *modules.flags, "-ldflags", f"-s -w {modules.ldflags}".strip()]
    # The linker drops what is for debuggers (-s -w); not making it saves a ninth of the compiler's time.
    flags.append("-gcflags=all=-dwarf=false")
    query: list[str | Path] = [go.path, "list", *flags, "-deps", "-f", _STALE, *packages]
    listing = process.stream_lines(query, env=env, cwd=work)
    to_compile = _count_stale(listing, modules=modules, progress=progress)
    # The slash makes it a directory to Go, which then names the files itself.
    command: list[str | Path] = [go.path, "build", *flags, "-v", "-o", f"{work / 'bin'}/", *packages]
    _report_build(process.stream_lines(command, env=env, cwd=work), programs, to_compile, progress)


def _count_stale(lines: Iterator[str], *, modules: ModuleSet, progress: ProgressSink) -> int:
    task = f"fetching the Go modules of {modules.name} {modules.version}"
    stale = fetched = 0
    for line in lines:
        if line.startswith(_TO_COMPILE):
            stale += 1
        elif line.startswith(_FETCHING):
            fetched += 1
            progress(Progress(task=task, done=fetched, note=line.removeprefix(_FETCHING)))
    if fetched:
        progress(Progress(task=task, done=fetched, total=fetched, finished=True))
    return stale


def _report_build(lines: Iterable[str], programs: Sequence[Program], to_compile: int, progress: ProgressSink) -> None:
    task = f"building {', '.join(program.name for program in programs)}"
    done = 0
    note = "" if to_compile else "linking"
    progress(Progress(task=task, total=to_compile, unit="packages", note=note))
    for line in lines:
        if " " in line:  # anything but an import path is said by the way
            continue
        done = min(done + 1, to_compile)
        note = "linking" if done == to_compile else line
        progress(Progress(task=task, done=done, total=to_compile, unit="packages", note=note))
    progress(Progress(task=task, done=to_compile, total=to_compile, unit="packages", finished=True))


def _environment(go: Go, platform: str) -> dict[str, str]:
    system, _, architecture = platform.partition("-")
    return {
        **go.env,
        "CGO_ENABLED": "0",
        "GOFLAGS": "",  # a -mod or -tags of the user's would make other programs than the pinned ones
        "GOWORK": "off",
        "GOOS": system,
        "GOARCH": architecture,
    }


def _output_name(program: Program) -> str:
    """Return what ``go build`` calls the program: the last part of its package, less a major version."""
    return Path(_MAJOR_SUFFIX.sub("", program.package)).name


def _pinned(modules: ModuleSet) -> dict[str, str]:
    directory = resources.files(__package__).joinpath("modules", modules.name)
    return {name: directory.joinpath(name).read_text(encoding="utf-8") for name in ("go.mod", "go.sum")}
