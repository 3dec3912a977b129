"""What the image is made of: exactly the lock's releases, with their digests, and nothing that the lock lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "locked.py"
LOCK = """\
attrs==26.1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:ba
prometheus-client==0.25.0 \\
    --hash=sha256:ca
    # via clusterguard (pyproject.toml)
pytest==9.0.0 \\
    --hash=sha256:da
"""


@pytest.fixture
def locked(tmp_path):
    """Call the tool with what pip would install."""

    def locked(*names):
        install = [{"metadata": {"name": name}} for name in names]
        install.append({"metadata": {"name": "clusterguard"}, "is_direct": True})
        (tmp_path / "lock").write_text(LOCK)
        (tmp_path / "report.json").write_text(json.dumps({"install": install}))
        command = [sys.executable, str(TOOL), str(tmp_path / "lock"), str(tmp_path / "report.json")]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    return locked


def test_what_is_needed_is_taken_with_all_digests_and_the_rest_is_left(locked):
    done = locked("attrs", "prometheus_client")

    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if "==" in line] == [
        "attrs==26.1.0",
        "prometheus-client==0.25.0",
    ]
    assert done.stdout.count("--hash") == 3


def test_what_the_lock_lacks_is_never_installed_without_a_digest(locked):
    done = locked("attrs", "intruder")

    assert done.returncode != 0
    assert "lacks intruder" in done.stderr
    assert not done.stdout
