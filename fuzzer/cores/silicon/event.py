"""What ends a run in user mode: the type that the processor's answer and the specification's have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from reference.faults import exception_name
from reference.image import GPRS, SEGMENTS

FIELDS: Final = (*GPRS, "rip", "rflags", *SEGMENTS, "fs_base", "gs_base")
"""The registers that are looked at, in the order of `FirstEvent.registers`."""


class Kind(StrEnum):
    """How user mode was left."""

    EXCEPTION = "exception"
    END = "ended"
    """By the reserved software interrupt."""
    CALL = "system call"
    NONE = "no event"
    """It runs on, as far as anybody waited."""
    OPEN = "open"
    """Not to be asked, or not modelled: `detail` says why."""


@dataclass(frozen=True, slots=True)
class FirstEvent:
    """The first time that user mode is left, and the machine as it was then; RIP and RFLAGS are those that are saved.

    At `Kind.END` RIP is that of the ending interrupt itself, and RF is set as for any fault: in user space it raises #GP.
    `memory` are the pages of user mode that changed, by physical page number of the image. `undefined` bits of RFLAGS and
    of images of it in memory mean nothing (the specification only).
    """

    kind: Kind
    vector: int = -1
    error_code: int | None = None
    cr2: int | None = None
    registers: tuple[int, ...] = ()
    memory: Mapping[int, bytes] = field(default_factory=dict)
    detail: str = ""
    start: int = 0
    """Where the instruction stands that led to it (the specification only)."""
    retired: int = 0
    """Boundaries passed before it (the specification only)."""
    undefined: int = 0
    undefined_words: Mapping[int, int] = field(default_factory=dict)

    def register(self, name: str) -> int:
        """One of FIELDS."""
        return self.registers[FIELDS.index(name)]

    @property
    def words(self) -> str:
        """`#GP(0x0)`, `ended`, `system call`."""
        if self.kind is Kind.EXCEPTION:
            return exception_name(self.vector, self.error_code)
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value
