"""Take from a lock file what an installation needs: ``locked.py requirements.lock report.json``.

The lock holds every extra, with digests; the report (``pip install --dry-run --report``) says what one installation
would take. What both name is printed in the form of the lock, so that pip checks the digest of each file.
"""

import json
import re
import sys
from pathlib import Path


def main(lock: Path, report: Path) -> None:
    """Print the part of the lock that the report names.

    Raises:
        SystemExit: The report names something that the lock does not have.
    """
    blocks = {}
    for block in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")):
        if found := re.match(r"([A-Za-z0-9._-]+)==", block):
            blocks.setdefault(_normal(found[1]), []).append(block)
    wanted = {
        _normal(each["metadata"]["name"])
        for each in json.loads(report.read_text(encoding="utf-8"))["install"]
        if not each.get("is_direct")
    }
    if missing := wanted - blocks.keys():
        sys.exit(f"{lock} lacks {', '.join(sorted(missing))}: run nox -s lock")
    print(*(block for name in sorted(wanted) for block in blocks[name]), sep="\n")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
