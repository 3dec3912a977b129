"""The evidence of a run: every event as it happens, then the result, in a folder of its own."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from clusterguard.drills.events import DrillFinished, DrillStarted
from clusterguard.model.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from clusterguard.drills.events import DrillEvent
    from clusterguard.drills.load import Drill

__all__ = ["Journal"]


class Journal:
    """Writes the events of a drill into ``FOLDER/DRILL-RUNID/``: ``events.jsonl``, ``drill.yaml``, ``result.json``.

    Each line is on the disk before the next step begins, so a run that is killed leaves a true record of how
    far it came. Nothing is ever overwritten.

    """

    def __init__(self, folder: Path, drill: Drill, *, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._drill = drill
        self._now = now
        self._events: TextIO | None = None
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
            self._end(event)

    def _begin(self, event: DrillStarted) -> None:
        self.path = self._folder / f"{_file_name(event.drill)}-{event.run_id}"
        self.path.mkdir(parents=True, mode=0o700)
        (self.path / "drill.yaml").write_text(self._drill.text)
        self._events = (self.path / "events.jsonl").open("x", encoding="utf-8")

    def _end(self, event: DrillFinished) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None
        if self.path is not None:
            temporary = self.path / ".result.json"
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(event.result.to_dict(), file, indent=2, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / "result.json")


def _plain(event: DrillEvent) -> dict[str, Any]:
    if isinstance(event, DrillFinished):
        return {"verdict": str(event.result.verdict), "reason": event.result.reason}
    return asdict(event)


def _file_name(drill: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in drill)
