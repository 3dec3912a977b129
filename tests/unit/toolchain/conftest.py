"""A release site on 127.0.0.1 that can misbehave, and programs that are shell scripts."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from clusterguard.model.progress import Progress
from clusterguard.toolchain import Source, Toolchain
from clusterguard.toolchain.releases import Asset, this_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ETCD_FILES = ("etcd", "etcdctl", "etcdutl")


@dataclass
class Site:
    """What the site answers, and what it was asked."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    knows_ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # each ends one answer after so many bytes
    seconds_per_chunk: float = 0
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Range


class _Handler(BaseHTTPRequestHandler):
    site: Site
    tick: Callable[[float], None]

    def do_GET(self) -> None:
        site = self.site
        asked = self.headers.get("Range", "")
        site.requests.append((self.path, asked))
        body = site.files.get(self.path)
        if site.status != 200 or body is None:
            self.send_error(site.status if site.status != 200 else 404)
            return
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.knows_ranges else 0
        if begin and begin >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        rest = body[begin:]
        if site.cuts:
            rest = rest[: site.cuts.pop(0)]
        for start in range(0, len(rest), 4096):
            self.wfile.write(rest[start : start + 4096])
            self.tick(site.seconds_per_chunk)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    handler = type("Handler", (_Handler,), {"tick": staticmethod(threading.Event().wait)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients are killed here on purpose
    handler.site = Site(address=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler.site
    server.shutdown()
    thread.join()
    server.server_close()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def etcd_script(version: str) -> str:
    return f"#!/bin/sh\necho 'etcd Version: {version}'\n"


def release_of_etcd(site: Site, *, version: str = "3.7.3", padding: int = 0) -> Asset:
    """Publish an archive as etcd's releases are laid out."""
    directory = f"etcd-v{version}-linux"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as archive:
        for name in (*ETCD_FILES, "README.md"):
            content = etcd_script(version).encode() + b"#" * padding
            member = tarfile.TarInfo(f"{directory}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return publish(site, "etcd.tar.gz", buffer.getvalue(), {n: f"{directory}/{n}" for n in ETCD_FILES}, version=version)


def publish(site: Site, filename: str, content: bytes, programs: dict[str, str], *, version: str = "3.7.3") -> Asset:
    site.files[f"/releases.example/{filename}"] = content
    return Asset(
        url=f"https://releases.example/{filename}",
        sha256=hashlib.sha256(content).hexdigest(),
        version=version,
        platform=this_platform(),
        programs=programs,
    )


@pytest.fixture
def fake_go(tmp_path: Path) -> Path:
    """A folder for PATH whose ``go`` compiles scripts; ``go.log`` beside it tells what it was asked."""
    folder = tmp_path / "go-folder"
    script(
        folder / "go",
        f"""
        echo "$@" >> {folder}/go.log
        case "$1" in
        version) echo "go version go1.26.8 linux/amd64";;
        list) echo "go: downloading go.etcd.io/bbolt v1.4.3"; echo "to compile: a"; echo "to compile: b";;
        build)
            test -e {folder}/fails && {{ echo "a/b.go:1: syntax error"; exit 1; }}
            test -e {folder}/slow && sleep "$(cat {folder}/slow)"
            while test -e {folder}/held; do sleep 0.05; done
            echo a; echo b
            while [ "$1" != -o ]; do shift; done
            out=$2; shift 2; mkdir -p "$out"
            for package; do
                name=$(basename "${{package%/v3}}")
                printf '#!/bin/sh\\necho "Version: 3.7.3"\\n' > "$out/$name"
            done;;
        esac""",
    )
    return folder


def times_built(folder: Path) -> int:
    log = folder / "go.log"
    return log.read_text().count("build -mod") if log.exists() else 0


class Told(list[Progress]):
    """A progress sink that remembers."""

    def __call__(self, moment: Progress) -> None:
        self.append(moment)

    @property
    def notes(self) -> str:
        return "\n".join(f"{moment.task}: {moment.note}" for moment in self if moment.note)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(tmp_path: Path, site: Site, told: Told) -> Callable[..., Toolchain]:
    """Make a toolchain with a cache of its own that downloads from the site."""

    def make(*pinned: Asset, **options: object) -> Toolchain:
        defaults = {
            "cache": tmp_path / "cache",
            "mirror": site.address,
            "progress": told,
            "sources": tuple(Source),
        }
        return Toolchain(pinned=pinned, **{**defaults, **options})

    return make
