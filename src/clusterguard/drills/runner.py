"""Runs a drill: set up, back up, break, restore, verify, clean up, and say what that proves."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clusterguard.drills import phases
from clusterguard.drills.cleanup import clean_up, remove_leftovers
from clusterguard.drills.clusters import lock_clusters
from clusterguard.drills.events import DrillFinished, DrillStarted
from clusterguard.drills.journal import Journal
from clusterguard.drills.mutation import mutate
from clusterguard.drills.recording import StopDrillError
from clusterguard.drills.run import DrillRun, DrillSettings
from clusterguard.drills.verdict import Verdict
from clusterguard.errors import ClusterGuardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.drills.events import DrillEvent, EventSink
    from clusterguard.drills.load import Drill
    from clusterguard.drills.verdict import DrillResult

__all__ = ["DrillRunner"]

_PHASES = (
    phases.refuse_what_cannot_work,
    phases.provision,
    phases.require_access,
    lock_clusters,
    remove_leftovers,
    phases.set_up,
    phases.back_up,
    phases.break_it,
    phases.require_red,
    phases.restore,
    phases.verify,
    phases.weigh_objectives,
    mutate,
)


class DrillRunner:
    """Runs drills.

        result = DrillRunner().run(load_drill(Path("drills/deleted-pods.drill.yaml")))
        assert result.verdict is Verdict.PASS

    Args:
        settings: What the person who runs the drill decides.
        on_event: Called with everything that happens, as it happens.
        now: The time, UTC.
    """

    def __init__(
        self,
        *,
        settings: DrillSettings | None = None,
        on_event: EventSink = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings or DrillSettings()
        self._on_event = on_event
        self._now = now

    def run(self, drill: Drill) -> DrillResult:
        """Run a drill to its end, cleanup included, and return what it showed.

        A drill that fails or cannot tell is a result, not an exception. Ctrl-C cleans up, reports the result, and
        is raised again; so is any unexpected error.

        Raises:
            ClusterGuardError: The evidence cannot be kept where it should be.
        """
        settings, now = self._settings, self._now
        if settings.evidence is None:
            return _run(DrillRun(drill=drill, settings=settings, on_event=self._on_event, now=now))
        journal = Journal(settings.evidence, drill, now=now, key=settings.evidence_key)
        on_event = _both(journal, self._on_event)
        with closing(journal):
            return _run(DrillRun(drill=drill, settings=settings, on_event=on_event, journal=journal, now=now))


def _run(run: DrillRun) -> DrillResult:
    run.on_event(DrillStarted(drill=run.drill.id, run_id=run.run_id, description=run.drill.spec.description))
    try:
        for phase in _PHASES:
            phase(run)
    except StopDrillError:
        pass  # the run says why
    except ClusterGuardError as error:
        run.worsen(Verdict.ERROR, error.message, error.hint, code=error.code)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            run.worsen(Verdict.ERROR, "interrupted", code="interrupted")
        run.worsen(Verdict.ERROR, f"unexpected {type(error).__name__}: {error}", code="unexpected-error")
        run.interrupted = True
        raise
    finally:
        try:
            clean_up(run)
        finally:
            result = run.result()
            run.on_event(DrillFinished(result=result))
    return result


def _both(first: EventSink, second: EventSink) -> EventSink:
    def on_event(event: DrillEvent) -> None:
        first(event)
        second(event)

    return on_event
