"""Where engines of different origin agree against the specification, and the manual's sentence says that they are wrong together.

An entry is made by reading the manual, never by counting engines. It steers nothing: it is looked up when a verdict is spoken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settled:
    """A cause in the words of signatures; an empty word stands for any."""

    cause: str
    expected: str
    observed: str
    sentence: str
    """What the manual says, by section."""


_ABSENT_STACK = (
    "SDM Vol. 2A, IRET, exceptions: #SS where the return stack segment is not present; #NP(selector) is for the return code segment"
)
_NULL_STACK = (
    "SDM Vol. 2A, IRET, 64-bit mode exceptions: #GP(0) if a NULL stack segment selector's RPL is not equal to CPL going back to "
    "non-CPL3 64-bit mode"
)

SETTLED: tuple[Settled, ...] = (
    *(Settled(cause, "#SS(selector)", "#NP(selector)", _ABSENT_STACK) for cause in ("iret", "iretd", "iretq")),
    *(Settled(cause, "#GP(0)", "completes", _NULL_STACK) for cause in ("iret", "iretd", "iretq")),
)


def settled(cause: str, expected: str, observed: str, table: Sequence[Settled] = SETTLED) -> str:
    """The sentence that settles a cause; nothing where none does."""
    words = (cause, expected, observed)
    for entry in table:
        if all(word in ("", said) for word, said in zip((entry.cause, entry.expected, entry.observed), words, strict=True)):
            return entry.sentence
    return ""
