"""Hardware breakpoints, single-stepping and DR6 (SDM Vol. 3B, 18.2 and 18.3)."""

from __future__ import annotations

from typing import Final

from reference.bits import BD, BS, RF
from reference.faults import Fault, NotModelled, Vector
from reference.machine import Machine, code_address

GENERAL_DETECT: Final = 1 << 13
ENABLES: Final = 0xFF

_EXECUTE, _WRITE, _IO, _ACCESS = range(4)
_LENGTHS = (1, 2, 8, 4)
"""By the LEN field; 10b is 8 bytes in IA-32e mode (SDM Vol. 3B, 18.2.4)."""


def _enabled(m: Machine) -> list[tuple[int, int, int]]:
    """(number, R/W, LEN) of each breakpoint that its L or G flag enables."""
    dr7 = m.dr7
    return [(n, dr7 >> 16 + 4 * n & 3, dr7 >> 18 + 4 * n & 3) for n in range(4) if dr7 >> 2 * n & 3]


def check_code_breakpoint(m: Machine) -> None:
    """Raise the #DB of an instruction breakpoint at RIP, unless RFLAGS.RF suppresses it (SDM Vol. 3B, 18.3.1.1).

    After a load of SS it is suppressed as if RF were set (SDM Vol. 3A, 7.8.3).
    """
    hits = 0
    here = code_address(m)
    for n, kind, length in _enabled(m):
        if kind == _EXECUTE and length:
            raise NotModelled("instruction breakpoint with a length other than 1")
        if kind == _EXECUTE and m.dr[n] == here:
            hits |= 1 << n
    if hits and not m.rflags & RF and not m.shadowed:
        m.dr6 |= hits
        m.undefined_dr6 |= _disabled(m)
        rule = "SDM Vol. 3B, 18.3.1.1: an instruction breakpoint, reported before the instruction runs"
        raise Fault(Vector.DB, None, rule, resume=False)


def note_data_access(m: Machine, linear: int, size: int, write: bool) -> None:
    """Remember that an access touched a data breakpoint; it is reported as a trap after the instruction (SDM Vol. 3B, 18.3.1.2)."""
    if not m.dr7 & ENABLES:
        return
    for n, kind, length in _enabled(m):
        if kind == _EXECUTE or (kind == _WRITE and not write):
            continue
        if kind == _IO:
            if not m.cr4 & 8:
                raise NotModelled("breakpoint type 10b with CR4.DE clear")
            continue
        width = _LENGTHS[length]
        start = m.dr[n] & ~(width - 1)
        if linear < start + width and start < linear + size:
            m.debug_hits |= 1 << n


def forbid_watched(m: Machine, linear: int, size: int) -> None:
    """Leave the model when event delivery itself would touch a data breakpoint: the manual does not say whether it counts."""
    before = m.debug_hits
    note_data_access(m, linear, size, write=True)
    if m.debug_hits != before:
        raise NotModelled("data breakpoint on an interrupt frame")


def _disabled(m: Machine) -> int:
    """B0 to B3 of breakpoints that are not enabled: a #DB for another one may set them or not (SDM Vol. 3B, 18.2.3)."""
    return sum(1 << n for n in range(4) if not m.dr7 >> 2 * n & 3)


def _waiting_at_rip(m: Machine) -> int:
    """B0 to B3 of instruction breakpoints at RIP: whether a trap before that instruction reports them too the manual does not say."""
    here = code_address(m)
    return sum(1 << n for n, kind, _ in _enabled(m) if kind == _EXECUTE and m.dr[n] == here)


def take_trap(m: Machine) -> bool:
    """Whether a debug trap is due at this boundary; DR6 then says why (SDM Vol. 3B, 18.2.3)."""
    causes = m.debug_hits | (BS if m.trap_pending else 0)
    if not causes:
        return False
    m.dr6 |= causes
    m.undefined_dr6 |= _disabled(m) | _waiting_at_rip(m)
    m.debug_hits = 0
    m.trap_pending = False
    return True


def check_general_detect(m: Machine) -> None:
    """#DB before a MOV that touches a debug register while DR7.GD is set (SDM Vol. 3B, 18.2.4)."""
    if m.dr7 & GENERAL_DETECT:
        m.dr6 |= BD
        raise Fault(Vector.DB, None, "SDM Vol. 3B, 18.2.4: a debug register is accessed while DR7.GD is set")
