"""The command line as its user meets it: words in, text and an exit code out."""

from typing import NamedTuple

import pytest

from clusterguard.cli.main import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run `clusterguard` with some arguments."""
    for name in ("KUBECONFIG", "CLUSTERGUARD_STORE", "CLUSTERGUARD_CLUSTER", "CLUSTERGUARD_DRILL_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ETCDCTL_ENDPOINTS", "ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY", "ETCDCTL_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def cli(*arguments):
        monkeypatch.setattr("sys.argv", ["clusterguard", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Outcome(end.value.code or 0, printed.out, printed.err)

    return cli
