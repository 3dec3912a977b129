"""Rewrite go.mod and go.sum of the API servers beside the default one, for the versions in ``programs.py``.

For maintainers, where Go modules can be had; needs Go on PATH, and compiles nothing::

    python tools/pin_kubernetes.py                       # all of them
    python tools/pin_kubernetes.py kube-apiserver@1.34   # one

Kubernetes' own go.mod puts its staging modules in place of published ones, which only works inside its repository, and
says which Go its programs behave like. Both is taken from there; Go does the rest, against its
checksum database.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from clusterguard import process
from clusterguard.toolchain.programs import API_SERVERS, PROGRAMS, Program

MODULES = Path(__file__).parent.parent / "src/clusterguard/toolchain/modules"
GO = "1.26.0"
ARCHITECTURES = ("amd64", "arm64")
_SECONDS = 3600
_STAGING = re.compile(r"^\s*(?:replace )?(k8s\.io/\S+) => \./staging/", re.MULTILINE)
_BEHAVES = re.compile(r"^(?:godebug default=go|go )(1\.\d+)", re.MULTILINE)


def main() -> int:
    """Rewrite the files; return the exit code."""
    names = [name for name in API_SERVERS.values() if PROGRAMS[name].is_other_version]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="such as kube-apiserver@1.34; by default all")
    for name in parser.parse_args().names or names:
        pin(PROGRAMS[name])
    return 0


def pin(program: Program) -> None:
    """Write the two files of one program, and see that everything it is compiled from is pinned."""
    folder = MODULES / program.modules.name
    folder.mkdir(exist_ok=True)
    (folder / "go.mod").write_text(_beginning(program), encoding="utf-8")
    # 1.30 names a module that is not published, in code that its build tag leaves out; `tidy` looks at all code.
    _go(folder, "mod", "tidy", "-e")
    # It also pins what only tests need; the program itself needs half of that.
    (folder / "go.sum").unlink()
    for mode in ("-mod=mod", "-mod=readonly"):
        for architecture in ARCHITECTURES:
            needed = ("list", mode, "-deps", *program.modules.flags, program.package)
            _go(folder, *needed, GOOS="linux", GOARCH=architecture, CGO_ENABLED="0")
    print(f"{program.name}: {sum(path.stat().st_size for path in folder.iterdir()):,} bytes", flush=True)


def _beginning(program: Program) -> str:
    version = program.modules.version
    theirs = _published(f"k8s.io/kubernetes@v{version}")
    published = f"v0.{version.partition('.')[2]}"
    replaced = "\n".join(f"\t{module} => {module} {published}" for module in _STAGING.findall(theirs))
    behaves = max(_BEHAVES.findall(theirs), key=lambda found: int(found.partition(".")[2]))
    return (
        f"module clusterguard.dev/toolchain/{program.modules.name}\n\ngo {GO}\n\ngodebug default=go{behaves}\n\n"
        f"replace (\n{replaced}\n)\n\nrequire k8s.io/kubernetes v{version}\n\ntool {program.package}\n"
    )


def _published(module: str) -> str:
    told = json.loads(_go(MODULES, "mod", "download", "-json", module))
    return Path(told["GoMod"]).read_text(encoding="utf-8")


def _go(folder: Path, *arguments: str, **environment: str) -> str:
    env = {"GOFLAGS": "", "GOWORK": "off", **environment}
    return process.run(["go", *arguments], cwd=folder, env=env, timeout_seconds=_SECONDS).stdout


if __name__ == "__main__":
    sys.exit(main())
