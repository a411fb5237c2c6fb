"""The contract: every promise, in the order in which an entry comes to it."""

from __future__ import annotations

from typing import Final

from reference.linux.handlers import PROMISES_IN
from reference.linux.moments import Promise, When
from reference.linux.returns import PROMISES_OUT

SURVIVES: Final = Promise(
    "survives",
    "The processor does not shut down: every event finds a handler and a stack.",
    "SDM Vol. 3A, 7.15, Interrupt 8",
    (),
    lambda at: "",
)
PROMISES: Final[tuple[Promise, ...]] = (*PROMISES_IN, *PROMISES_OUT, SURVIVES)
DUE: Final = {when: tuple(promise for promise in PROMISES if when in promise.when) for when in When}
"""By the moment at which they are judged."""
