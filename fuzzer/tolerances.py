"""What is not compared, by name: each tolerance has a reason and a source, and campaigns count how often it was needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A difference that proves nothing."""

    id: str
    why: str
    source: str
    covers: str


UNDEFINED_FLAGS = Tolerance(
    id="undefined-flags",
    why="the manual leaves some status flags undefined after an instruction; any value is right until they are written again",
    source="SDM Vol. 1, appendix A (EFLAGS cross-reference), entries marked with a dash",
    covers="the bits of RFLAGS that the specification tracks as undefined, in the register and in the images that were pushed",
)

OTHER_BREAKPOINTS = Tolerance(
    id="other-breakpoints",
    why="a debug exception may or may not set the bits in DR6 of breakpoints whose conditions hold but which DR7 does not enable; "
    "nor does the manual say whether a trap reports a breakpoint on the instruction that follows it",
    source="SDM Vol. 3B, 18.2.3, B0 through B3",
    covers="B0 to B3 of breakpoints that were not enabled, or that wait at RIP, once another debug exception has been reported",
)

ACCESSED_FLAGS = Tolerance(
    id="accessed-flags",
    why="a processor may set the accessed flag of an entry that it looked at, whether or not the access was then allowed",
    source="SDM Vol. 3A, 5.8 and 5.10.2.3",
    covers="bit 5 of words in the page tables, where the specification leaves it clear",
)

TOLERANCES = {tolerance.id: tolerance for tolerance in (UNDEFINED_FLAGS, OTHER_BREAKPOINTS, ACCESSED_FLAGS)}
