"""Rewrite ``releases.toml`` from what the upstreams publish, for the versions that are built from source.

For maintainers, where the release sites can be reached::

    python tools/pin_releases.py            # rewrite the file
    python tools/pin_releases.py --check    # only compare; exit code 1 when something differs

dl.k8s.io publishes a ``.sha256`` beside each program. For releases on GitHub the digest that GitHub computed
when the file was uploaded is asked for (``digest`` of a release asset, REST API, since June 2025).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from clusterguard.toolchain.programs import API_SERVERS, PROGRAMS
from clusterguard.toolchain.releases import Asset

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASES = Path(__file__).parent.parent / "src/clusterguard/toolchain/releases.toml"
ARCHITECTURES = ("amd64", "arm64")
HEADER = """\
# Official release files and what their bytes must be. `tools/pin_releases.py` rewrites this file from what
# the upstreams publish, where they can be reached. A program or platform without an entry has no download
# and is compiled from source. The comment above an entry says where its checksum was read.
"""


def main() -> int:
    """Rewrite or check the file; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    text = HEADER + "".join(_entry(asset, source) for asset, source in _published())
    same = text == RELEASES.read_text(encoding="utf-8")
    if not check:
        RELEASES.write_text(text, encoding="utf-8")
    print("unchanged" if same else "different" if check else "rewritten")
    return int(check and not same)


def _published() -> Iterator[tuple[Asset, str]]:
    for architecture in ARCHITECTURES:
        yield from _kubernetes(architecture)
        yield from _github_assets(architecture)


def _kubernetes(architecture: str) -> Iterator[tuple[Asset, str]]:
    for name in (*API_SERVERS.values(), "kube-controller-manager", "kube-scheduler", "kubectl"):
        program = PROGRAMS[name]
        version = program.modules.version
        url = f"https://dl.k8s.io/release/v{version}/bin/linux/{architecture}/{program.file}"
        sha256 = _get(f"{url}.sha256").text.split()[0]
        yield _asset(url, sha256, version, architecture, {name: ""}), f"{url}.sha256"


def _github_assets(architecture: str) -> Iterator[tuple[Asset, str]]:
    etcd = f"etcd-v{{version}}-linux-{architecture}"
    velero = f"velero-v{{version}}-linux-{architecture}"
    versity = f"versitygw_v{{version}}_Linux_{'x86_64' if architecture == 'amd64' else architecture}"
    wanted = (
        (
            "etcd-io/etcd",
            f"{etcd}.tar.gz",
            {name: f"{etcd}/{name}" for name in ("etcd", "etcdctl", "etcdutl")},
        ),
        ("kubernetes-sigs/kwok", f"kwok-linux-{architecture}", {"kwok": ""}),
        ("kubernetes-sigs/kind", f"kind-linux-{architecture}", {"kind": ""}),
        ("vmware-tanzu/velero", f"{velero}.tar.gz", {"velero": f"{velero}/velero"}),
        (
            "FiloSottile/age",
            f"age-v{{version}}-linux-{architecture}.tar.gz",
            {"age": "age/age", "age-keygen": "age/age-keygen"},
        ),
        ("versity/versitygw", f"{versity}.tar.gz", {"versitygw": f"{versity}/versitygw"}),
    )
    for repository, filename, programs in wanted:
        version = PROGRAMS[next(iter(programs))].modules.version
        listing = f"https://api.github.com/repos/{repository}/releases/tags/v{version}"
        name = filename.format(version=version)
        found = next(item for item in _get(listing).json()["assets"] if item["name"] == name)
        members = {program: member.format(version=version) for program, member in programs.items()}
        url, sha256 = found["browser_download_url"], found["digest"].removeprefix("sha256:")
        yield _asset(url, sha256, version, architecture, members), listing


def _asset(url: str, sha256: str, version: str, architecture: str, programs: dict[str, str]) -> Asset:
    return Asset(url=url, sha256=sha256, version=version, platform=f"linux-{architecture}", programs=programs)


def _entry(asset: Asset, source: str) -> str:
    programs = ", ".join(f'{_toml_key(name)} = "{member}"' for name, member in asset.programs.items())
    return (
        f"\n# {source}\n[[asset]]\n"
        f'version = "{asset.version}"\nplatform = "{asset.platform}"\nurl = "{asset.url}"\n'
        f'sha256 = "{asset.sha256}"\nprograms = {{ {programs} }}\n'
    )


def _toml_key(name: str) -> str:
    return f'"{name}"' if "@" in name else name


def _get(url: str) -> requests.Response:
    response = requests.get(url, timeout=30)
    response.raise_for_status()
    return response


if __name__ == "__main__":
    sys.exit(main())
