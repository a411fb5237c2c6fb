"""A machine on its way, with its contract watched: where it is, and how it ended if it has."""

from __future__ import annotations

from reference.boot import boot
from reference.delivery import Ended
from reference.faults import Fault, NotModelled, Shutdown
from reference.fork import fork
from reference.image import End, Event, Image
from reference.linux.contract import Violation, Watch
from reference.linux.entry_code import EntryCode
from reference.machine import Machine
from reference.run import step
from reference.trace import ONE_ITERATION


class Running:
    """A run of the specification that can be continued twice."""

    __slots__ = ("detail", "end", "limit", "m", "watch")

    def __init__(self, m: Machine, limit: int, watch: Watch | None) -> None:
        self.m = m
        self.limit = limit
        self.watch = watch
        self.end: End | None = None
        self.detail = ""

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What broke the contract so far."""
        return tuple(self.watch.violations) if self.watch else ()

    def fork(self) -> Running:
        """The same run from here on, going its own way."""
        m = fork(self.m)
        return Running(m, self.limit, self.watch.fork(m) if self.watch else None)

    def step(self) -> None:
        """Pass one boundary, or come to the end."""
        m = self.m
        # As in `reference.run`: a handler whose own fetch faults is entered for ever, and nothing retires.
        if m.retired >= self.limit or len(m.deliveries) >= self.limit:
            self.end = End.DID_NOT_END
            return
        try:
            if not (self.watch.step() if self.watch else step(m)):
                self.end = End.HALTED
        except Ended:
            self.end = End.ENDED
        except Shutdown:
            self.end = End.SHUTDOWN
        except NotModelled as reason:
            self.end, self.detail = End.NOT_MODELLED, reason.what

    def stop_at_every_boundary(self) -> None:
        """Repeated string instructions hand over after every iteration."""
        self.m.limit = ONE_ITERATION

    def hurry(self) -> None:
        """Repeated string instructions run as far as they can."""
        self.m.limit = self.limit

    def arrive(self, event: Event) -> None:
        """One event more is on its way."""
        m = self.m
        m.arrivals = sorted([*m.arrivals, event], reverse=True)
        m.next_arrival = m.arrivals[-1].boundary

    def waits_for(self, event: Event) -> bool:
        """Whether `event` has not been taken yet."""
        return any(each is event for each in self.m.pending) or any(each is event for each in self.m.arrivals)


def start(image: Image, code: EntryCode | None) -> Running | None:
    """The run of `image` before its first instruction; None where the initial state is outside the model."""
    try:
        m = boot(image)
    except (Fault, NotModelled):
        return None
    return Running(m, image.limit, Watch(m, code) if code else None)
