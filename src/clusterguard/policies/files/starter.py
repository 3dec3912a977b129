"""The first policy of a newcomer, with a key pair, to be read and changed."""

from __future__ import annotations

import os
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError
from clusterguard.stores.encryption import new_key_pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["starter_files", "write_starter"]

_KUBEADM: Final = """\
  - name: etcd
    etcd: # of this control-plane node, as kubeadm has it
      endpoints: ["https://127.0.0.1:2379"]
      caFile: /etc/kubernetes/pki/etcd/ca.crt
      certFile: /etc/kubernetes/pki/etcd/healthcheck-client.crt
      keyFile: /etc/kubernetes/pki/etcd/healthcheck-client.key
"""
_DRILL: Final = "prove.drill.yaml"


def starter_files(*, name: str, cluster: str, locations: Sequence[str], expect: str) -> Mapping[str, str]:
    """Return a policy, and a drill where one is asked for, as texts by file name.

    - ``cluster``: A word for the cluster whose etcd is backed up; empty for the kubeadm node that this is.
    - ``locations``: where copies lie, as `open_store` takes it; one folder beside the policy where there is none.
    - ``expect``: A namespace that a restore must bring back: a drill proves it, beside the rehearsal of every object.
    """
    source = f"  - name: etcd\n    etcd: {{cluster: {cluster!r}}}\n" if cluster else _KUBEADM
    places = "".join(
        f"  - {{name: location-{number}, url: {url!r}}}\n"
        for number, url in enumerate(locations or ("./copies",), start=1)
    )
    drill = f"  - {{name: expected, drill: {_DRILL}, source: etcd, every: 30d}}\n" if expect else ""
    written = {"policy.yaml": _filled("policy", name=name, source=source, locations=places, drill=drill)}
    if expect:
        expected = f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {expect!r}}}}}"
        written[_DRILL] = _filled("drill", expected=expected)
    return written


def _filled(template: str, **values: str) -> str:
    text = files(__package__).joinpath(f"starter_{template}.yaml").read_text(encoding="utf-8")
    return Template(text).safe_substitute(values)


def write_starter(folder: Path, written: Mapping[str, str]) -> tuple[Path, ...]:
    """Write a starter's files and a new key pair into a folder; the private key is for its owner alone.

    Raises:
        ConfigError: One of the files is there already; then nothing was written.
    """
    private, public = new_key_pair()
    texts = {**written, "recipients.txt": public + "\n", "identity.txt": private + "\n"}
    taken = [name for name in texts if (folder / name).exists()]
    if taken:
        raise ConfigError(
            f"{folder}: already there: {', '.join(taken)}",
            code="file-exists",
            fields={"files": taken},
            hint="name another folder: nothing is overwritten",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        mode = 0o600 if name == "identity.txt" else 0o644
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    return tuple(folder / name for name in texts)
