"""Where engines of different origin agree against the specification, and the manual's sentence says that they are wrong together.

An entry is made by reading the manual, never by counting engines. It steers nothing: it is looked up when a verdict is spoken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Settled:
    """A question in the words of signatures: the beginning of the rule that the specification names, and what engines do instead,
    where the rule alone does not make the question."""

    rule: str
    observed: str | None
    sentence: str
    """What the manual says, by section."""


SETTLED: Final = (
    Settled(
        rule="the stack segment is marked not present",
        observed="#NP(selector)",
        sentence="SDM Vol. 2A, IRET, exceptions: #SS where the return stack segment is not present; #NP(selector) is for the return code "
        "segment",
    ),
    Settled(
        rule="SDM Vol. 2A, IRET: a null return stack selector's RPL is not the CPL",
        observed="completes",
        sentence="SDM Vol. 2A, IRET, 64-bit mode exceptions: #GP(0) if a NULL stack segment selector's RPL is not equal to CPL going back "
        "to non-CPL3 64-bit mode",
    ),
    Settled(
        rule="SDM Vol. 2B, RET: a null return stack selector's RPL is not the CPL",
        observed="completes",
        sentence="SDM Vol. 2B, RET, 64-bit mode exceptions: #GP(0) if a NULL stack segment selector's RPL is not equal to CPL going back "
        "to non-CPL3 64-bit mode",
    ),
    Settled(
        rule="Return to user mode at RCX (SDM Vol. 2B, SYSRET",
        observed="completes",
        sentence="SDM Vol. 2B, SYSRET, operation: RFLAGS := (R11 & 3C7FD7H) | 2, which clears RF and VM",
    ),
    Settled(
        rule="SDM Vol. 2A, LDS/LES/LFS/LGS/LSS, CALL and JMP: REX.W makes the offset 64 bits wide; APM Vol. 3: it stays 32 bits wide",
        observed=None,
        sentence="APM Vol. 3, CALL (Far) and JMP (Far): the offset of a far pointer in memory is 16 or 32 bits wide; the engines read "
        "Intel's 64 bits on models of AMD processors",
    ),
)


def settled(rule: str, observed: str, table: Sequence[Settled] = SETTLED) -> str:
    """The sentence that settles a question; nothing where none does."""
    return next((entry.sentence for entry in table if rule.startswith(entry.rule) and entry.observed in (None, observed)), "")
