"""The evidence of a run: every event as it happens, then what it came to and what was used, in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from clusterguard.drills.events import DrillFinished, DrillStarted
from clusterguard.evidence import bundle
from clusterguard.evidence.envelope import Statement, sealed
from clusterguard.evidence.secrecy import SecretValues
from clusterguard.model.progress import Progress
from clusterguard.scratch import private_folder, replacing
from clusterguard.validate.files import save_inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from clusterguard.drills.events import DrillEvent
    from clusterguard.drills.load import Drill
    from clusterguard.drills.verdict import DrillResult
    from clusterguard.evidence.keys import SigningKey
    from clusterguard.model.inventory import Inventory

__all__ = ["Journal"]

_SIGNED: Final = ("drill", "runId", "verdict", "code", "started", "seconds", "controls", "rtoSeconds", "rpoSeconds")
"""What the statement says of a run, as its result has it."""


class Journal:
    """Writes the bundle of a run: the events of a drill as they happen, and at the end everything else.

    Each line is on the disk before the next step begins, so a run that is killed leaves a true record of how
    far it came. Nothing is ever overwritten.

    Args:
        location: The folder in which the bundle gets one of its own, or the location of a bucket.
        drill: What runs.
        now: The time, UTC.
        key: What signs it; None signs nothing.
    """

    def __init__(
        self, location: Path | str, drill: Drill, *, now: Callable[[], datetime], key: SigningKey | None = None
    ) -> None:
        self._location = location
        self._drill = drill
        self._now = now
        self._key = key
        self._events: TextIO | None = None
        self._result: DrillResult | None = None
        self._stack = ExitStack()
        self.secrets = SecretValues()
        self.path: Path | None = None

    def __call__(self, event: DrillEvent) -> None:
        """Write one event."""
        if isinstance(event, Progress):
            return
        if isinstance(event, DrillStarted):
            self._begin(event)
        if self._events is None:
            return
        line = {"at": self._now().isoformat(), "event": type(event).__name__, **_plain(event)}
        self._events.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._events.flush()
        os.fsync(self._events.fileno())
        if isinstance(event, DrillFinished):
            self._events.close()
            self._events = None
            self._result = event.result
            told = event.result.to_dict()
            # What tells which run it was is no secret, whatever somebody chose for a password.
            self.add(bundle.RESULT, told, as_it_is={name: told[name] for name in _SIGNED})

    def add(self, name: str, document: Any, *, as_it_is: Mapping[str, Any] | None = None) -> None:  # noqa: ANN401 - JSON
        """Write a file of JSON, without the values of Secrets but for the fields that stay as they are."""
        hidden = self.secrets.hidden(document)
        if as_it_is:
            hidden |= as_it_is
        self._write(name, json.dumps(hidden, indent=2, ensure_ascii=False).encode())

    def add_inventory(self, name: str, inventory: Inventory) -> None:
        """Write an inventory, with digests in the place of the values of Secrets."""
        save_inventory(self.secrets.in_digests(inventory), self._folder / name)

    def close(self) -> None:
        """Make what was written a bundle: no value of a Secret in it, signed, and where it is kept.

        Raises:
            ClusterGuardError: It cannot be kept there.
            OSError: It cannot be written.
        """
        with self._stack:
            if self._events is not None:  # the run ended without a result
                self._events.close()
                self._events = None
            if self.path is None:
                return
            self._hide_secrets()
            if self._key is not None and self._result is not None:
                self._write(bundle.ENVELOPE, sealed(self._statement(self._result), self._key))
            if bundle.is_remote(self._location):
                self._send(self.path)

    @property
    def _folder(self) -> Path:
        if self.path is None:
            raise RuntimeError("the drill has not begun")
        return self.path

    def _begin(self, event: DrillStarted) -> None:
        remote = bundle.is_remote(self._location)
        folder = self._stack.enter_context(private_folder()) if remote else Path(self._location)
        self.path = folder / bundle.folder_name(event.drill, event.run_id)
        self.path.mkdir(parents=True, mode=0o700)
        (self.path / bundle.DRILL).write_text(self._drill.text)
        self._events = (self.path / bundle.EVENTS).open("x", encoding="utf-8")

    def _write(self, name: str, data: bytes) -> None:
        with replacing(self._folder / name) as file:
            file.write(data)

    def _hide_secrets(self) -> None:
        """Make unreadable what was written before its value was known to be that of a Secret."""
        drill, events = self._folder / bundle.DRILL, self._folder / bundle.EVENTS
        if (text := drill.read_text()) != (hidden := self.secrets.hidden_text(text)):
            self._write(bundle.DRILL, hidden.encode())
        # Not splitlines(), to which other characters end a line, too.
        lines = [json.loads(line) for line in events.read_text(encoding="utf-8").split("\n") if line]
        if lines != (without := self.secrets.hidden(lines)):
            self._write(
                bundle.EVENTS, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in without).encode()
            )

    def _statement(self, result: DrillResult) -> Statement:
        files = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(self._folder.iterdir())
        }  # what is in it was written by this run alone: the folder is new
        told = result.to_dict()
        score = (told.get("mutation") or {}).get("score")
        return Statement(files=files, predicate={**{name: told[name] for name in _SIGNED}, "mutationScore": score})

    def _send(self, folder: Path) -> None:
        store = bundle.evidence_store(self._location)
        # The signature comes last: where it is, all of the bundle is.
        for path in sorted(folder.iterdir(), key=lambda each: (each.name == bundle.ENVELOPE, each.name)):
            with store.put(f"{folder.name}/{path.name}") as writer:
                writer.write(path.read_bytes())


def _plain(event: DrillEvent) -> dict[str, Any]:
    if isinstance(event, DrillFinished):
        return {"verdict": str(event.result.verdict), "reason": event.result.reason}
    return asdict(event)
