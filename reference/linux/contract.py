"""The executable contract of entry code: what it promises, and whether a run keeps it (docs/contract.md)."""

from __future__ import annotations

from reference.boot import boot, observe
from reference.delivery import Ended
from reference.faults import Fault, NotModelled, Shutdown
from reference.image import End, Image, Observation
from reference.linux.assumptions import assumes
from reference.linux.entry_code import EntryCode
from reference.linux.moments import Promise, Violation, When
from reference.linux.promises import PROMISES
from reference.linux.watch import Watch
from reference.machine import Machine

__all__ = ["PROMISES", "Promise", "Violation", "Watch", "When", "assumes", "judge"]


def judge(image: Image, code: EntryCode) -> tuple[Observation, tuple[Violation, ...]]:
    """Run `image` to its end as `reference.run.run` does, and say which promises were broken on the way, the first one first."""
    detail = ""
    try:
        m = boot(image)
    except (Fault, NotModelled) as reason:
        return Observation(End.NOT_MODELLED, detail=f"initial state: {reason}"), ()
    watch = Watch(m, code)
    try:
        end = _run_to_end(m, watch, image.limit)
    except Ended:
        end = End.ENDED
    except Shutdown:
        end = End.SHUTDOWN
    except NotModelled as reason:
        end, detail = End.NOT_MODELLED, reason.what
    return observe(m, image, end, detail), tuple(watch.violations)


def _run_to_end(m: Machine, watch: Watch, limit: int) -> End:
    while m.retired < limit and len(m.deliveries) < limit:
        if not watch.step():
            return End.HALTED
    return End.DID_NOT_END
