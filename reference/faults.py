"""Exceptions: their vectors, what they push, and what happens when one meets another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn


class Vector:
    """The architecture's exception vectors (SDM Vol. 3A, Table 7-1)."""

    DE: Final = 0
    DB: Final = 1
    NMI: Final = 2
    BP: Final = 3
    OF: Final = 4
    BR: Final = 5
    UD: Final = 6
    NM: Final = 7
    DF: Final = 8
    TS: Final = 10
    NP: Final = 11
    SS: Final = 12
    GP: Final = 13
    PF: Final = 14
    MF: Final = 16
    AC: Final = 17
    MC: Final = 18


class Kind(Enum):
    """The classes that decide whether two exceptions make a double fault (SDM Vol. 3A, Table 7-4)."""

    BENIGN = "benign"
    CONTRIBUTORY = "contributory"
    PAGE_FAULT = "page fault"
    DOUBLE_FAULT = "double fault"


@dataclass(frozen=True, slots=True)
class Info:
    """What is fixed for an exception vector: name, whether an error code is pushed, double-fault class."""

    name: str
    pushes_error: bool = False
    kind: Kind = Kind.BENIGN


VECTORS: Final = {
    Vector.DE: Info("#DE", kind=Kind.CONTRIBUTORY),
    Vector.DB: Info("#DB"),
    Vector.NMI: Info("NMI"),
    Vector.BP: Info("#BP"),
    Vector.OF: Info("#OF"),
    Vector.BR: Info("#BR"),
    Vector.UD: Info("#UD"),
    Vector.NM: Info("#NM"),
    Vector.DF: Info("#DF", pushes_error=True, kind=Kind.DOUBLE_FAULT),
    Vector.TS: Info("#TS", pushes_error=True, kind=Kind.CONTRIBUTORY),
    Vector.NP: Info("#NP", pushes_error=True, kind=Kind.CONTRIBUTORY),
    Vector.SS: Info("#SS", pushes_error=True, kind=Kind.CONTRIBUTORY),
    Vector.GP: Info("#GP", pushes_error=True, kind=Kind.CONTRIBUTORY),
    Vector.PF: Info("#PF", pushes_error=True, kind=Kind.PAGE_FAULT),
    Vector.MF: Info("#MF"),
    Vector.AC: Info("#AC", pushes_error=True),
    Vector.MC: Info("#MC"),
}


def vector_name(vector: int) -> str:
    """`#GP` for 13, `vector 0x72` for one the architecture does not define."""
    info = VECTORS.get(vector)
    return info.name if info else f"vector {vector:#x}"


def exception_name(vector: int, error_code: int | None) -> str:
    """`#GP(0x10)`, `#UD`: an exception with its error code if it has one."""
    return vector_name(vector) if error_code is None else f"{vector_name(vector)}({error_code:#x})"


class Fault(Exception):
    """An exception of the architecture, raised where the rule that demands it stands.

    `rule` is that rule in words; `error_code` is None for vectors that push none; `cr2` is set by page faults only. `resume`
    says whether RF is set in the pushed image: for every fault but an instruction breakpoint (SDM Vol. 3B, 18.3.1.1).
    """

    def __init__(self, vector: int, error_code: int | None, rule: str, cr2: int | None = None, resume: bool = True) -> None:
        super().__init__(vector, error_code, rule)
        self.vector = vector
        self.error_code = error_code
        self.rule = rule
        self.cr2 = cr2
        self.resume = resume


class NotModelled(Exception):
    """The case left the subset that the specification describes; `what` names the instruction or the situation."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Shutdown(Exception):
    """A fault while delivering a double fault: the processor stops (SDM Vol. 3A, 7.15, Interrupt 8)."""


def require(condition: bool, vector: int, error_code: int | None, rule: str) -> None:
    """Raise `Fault` unless `condition` holds: the guard of every rule. Call it before any effect."""
    if not condition:
        raise Fault(vector, error_code, rule)


def undefined_opcode(rule: str) -> NoReturn:
    """Raise #UD."""
    raise Fault(Vector.UD, None, rule)


_DOUBLE: Final = {
    (Kind.CONTRIBUTORY, Kind.CONTRIBUTORY),
    (Kind.PAGE_FAULT, Kind.CONTRIBUTORY),
    (Kind.PAGE_FAULT, Kind.PAGE_FAULT),
}


def makes_double_fault(first: Kind, second: Kind) -> bool:
    """Whether `second`, met while delivering `first`, becomes #DF (SDM Vol. 3A, Table 7-5). Raises Shutdown after a #DF."""
    if first is Kind.DOUBLE_FAULT and second is not Kind.BENIGN:
        raise Shutdown
    return (first, second) in _DOUBLE
