"""A path: one case run on the specification, its state at every boundary kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fuzzer.case import Case
from fuzzer.legal import LAST_BOUNDARY
from fuzzer.sweep.memory_use import MemoryUse, watch_memory
from fuzzer.sweep.running import Running, start
from reference.boot import boot, observe
from reference.descriptors import Segment
from reference.image import Image, Observation
from reference.linux.contract import Violation
from reference.linux.entry_code import EntryCode
from reference.machine import Machine

_MEMORY: Final = {"copied", "pages", "undefined_words"}
_HISTORY: Final = {"deliveries", "fault_at_fetch", "last_fault", "retired"}
_FIXED: Final = {"end_vector", "limit", "profile"}
_CACHES: Final = {"code_frames", "paging_structures", "supervisor", "system", "translations", "user", "user32"}
_EVENTS_TO_COME: Final = {"arrivals", "machine_check_in_progress", "next_arrival"}
"""Equal where none is to come: that a machine check is in progress matters to the next one only."""
_STATE: Final = tuple(sorted(set(Machine.__slots__) - _MEMORY - _HISTORY - _FIXED - _CACHES - _EVENTS_TO_COME))

State = tuple[object, ...]


def state_of(m: Machine) -> State:
    """All of a machine but its memory that decides how it goes on once no event is to come."""
    return tuple(_value(getattr(m, name)) for name in _STATE)


def _value(value: object) -> object:
    if isinstance(value, Segment):
        return value.selector, value.base, value.limit, value.descriptor.raw, value.usable
    return tuple(map(_value, value)) if isinstance(value, list) else value


@dataclass(slots=True)
class Path:
    """`starts` are the runs at boundaries `first` to `last`, each before anything arrives there."""

    case: Case
    image: Image
    observation: Observation
    last_machine: Machine
    violations: tuple[Violation, ...]
    starts: dict[int, Running]
    use: MemoryUse
    _states: dict[int, State] = field(default_factory=dict)

    @property
    def boundaries(self) -> range:
        """Every boundary of the path: before each instruction that retired, and before the one that ended it."""
        return range(min(self.observation.retired, LAST_BOUNDARY) + 1)

    def state(self, boundary: int) -> State:
        """The state at a boundary."""
        if boundary not in self._states:
            self._states[boundary] = state_of(self.starts[boundary].m)
        return self._states[boundary]


def record(case: Case, image: Image, code: EntryCode | None, first: int = 0, last: int | None = None) -> Path | None:
    """Run a case from its start to its end; None where its initial state is outside the model."""
    run = start(image, code)
    if run is None:
        return None
    run.stop_at_every_boundary()
    starts: dict[int, Running] = {}
    while run.end is None:
        here = run.m.retired
        if here not in starts and here >= first and (last is None or here <= last):
            starts[here] = run.fork()
        run.step()
    observation = observe(run.m, image, run.end, run.detail)
    return Path(case, image, observation, run.m, run.violations, starts, _memory_use(image))


def _memory_use(image: Image) -> MemoryUse:
    run = Running(boot(image), image.limit, None)
    run.stop_at_every_boundary()
    use = watch_memory(run.m)
    while run.end is None:
        use.now = run.m.retired
        run.step()
    return use
