"""4-level paging: from a linear address to a physical page, or #PF (SDM Vol. 3A, chapter 4)."""

from __future__ import annotations

import struct
from typing import Final

from reference.bits import AC
from reference.faults import Fault, NotModelled, Vector
from reference.machine import Machine
from reference.profiles import Cr0, Cr4, Efer

READ: Final = 0
WRITE: Final = 1
FETCH: Final = 2

PRESENT: Final = 1 << 0
WRITABLE: Final = 1 << 1
USER: Final = 1 << 2
ACCESSED: Final = 1 << 5
DIRTY: Final = 1 << 6
PAGE_SIZE: Final = 1 << 7
NO_EXECUTE: Final = 1 << 63
ADDRESS: Final = 0x000F_FFFF_FFFF_F000

ERROR_PRESENT: Final = 1 << 0
ERROR_WRITE: Final = 1 << 1
ERROR_USER: Final = 1 << 2
ERROR_RESERVED: Final = 1 << 3
ERROR_FETCH: Final = 1 << 4

_QWORD = struct.Struct("<Q")


def page_of(m: Machine, frame: int) -> bytes | bytearray:
    """The contents of a physical page; outside the modelled memory nothing is known."""
    page = m.pages.get(frame)
    if page is None:
        raise NotModelled("physical address outside memory")
    return page


def writable_page(m: Machine, frame: int) -> bytearray:
    """The same page, its own copy from now on: the image is never written."""
    page = page_of(m, frame)
    if isinstance(page, bytes):
        page = bytearray(page)
        m.pages[frame] = page
    return page


def translate(m: Machine, linear: int, access: int, user: bool, implicit: bool = False) -> int:
    """The physical page number of a canonical `linear` address, accessed and dirty flags set, or #PF (SDM Vol. 3A, 4.5 to 4.8).

    `user` is a user-mode access (CPL 3 and not implicit); `implicit` a supervisor access to a system structure, for which
    RFLAGS.AC does not lift SMAP (SDM Vol. 3A, 4.6.1).
    """
    entries = _walk(m, linear, access, user)
    _check_rights(m, linear, access, user, implicit, [entry for _, _, entry in entries])

    for level, (frame, offset, entry) in enumerate(entries):
        wanted = entry | ACCESSED | (DIRTY if access == WRITE and level == 3 else 0)
        if wanted != entry:
            _QWORD.pack_into(writable_page(m, frame), offset, wanted)
    return (entries[3][2] & ADDRESS) >> 12


def _walk(m: Machine, linear: int, access: int, user: bool) -> list[tuple[int, int, int]]:
    """The four entries that map `linear`, each with where it stands: (physical page, offset, value)."""
    entries = []
    table = m.cr3 & ADDRESS
    for shift in (39, 30, 21, 12):
        offset = (linear >> shift & 0x1FF) * 8
        entry: int = _QWORD.unpack_from(page_of(m, table >> 12), offset)[0]
        if not entry & PRESENT:
            raise _page_fault(m, linear, access, user, 0, "paging: the translation is not present (SDM Vol. 3A, 4.7)")
        if entry & _reserved(m):
            raise _page_fault(
                m, linear, access, user, ERROR_PRESENT | ERROR_RESERVED, "paging: a reserved bit is set in a paging-structure entry"
            )
        if entry & PAGE_SIZE and shift != 12:
            raise NotModelled("large page")
        entries.append((table >> 12, offset, entry))
        table = entry & ADDRESS
    return entries


def _reserved(m: Machine) -> int:
    """Bits that must be 0 in every entry: the address bits past MAXPHYADDR, and NX while EFER.NXE is 0 (SDM Vol. 3A, 4.5.4)."""
    beyond = ADDRESS & ~((1 << m.profile.physical_address_bits) - 1)
    return beyond if m.efer & Efer.NXE else beyond | NO_EXECUTE


def _check_rights(m: Machine, linear: int, access: int, user: bool, implicit: bool, entries: list[int]) -> None:
    """Raise #PF unless the four entries together allow the access (SDM Vol. 3A, 4.6.1)."""
    user_page = all(entry & USER for entry in entries)
    writable = all(entry & WRITABLE for entry in entries)
    executable = not any(entry & NO_EXECUTE for entry in entries)

    if user:
        allowed, rule = user_page, "paging: a user-mode access to a supervisor page"
    elif user_page and access == FETCH:
        allowed, rule = not m.cr4 & Cr4.SMEP, "paging: a supervisor fetch from a user page with CR4.SMEP"
    elif user_page:
        lifted = bool(m.rflags & AC) and not implicit
        allowed, rule = not m.cr4 & Cr4.SMAP or lifted, "paging: a supervisor access to a user page with CR4.SMAP and RFLAGS.AC clear"
    else:
        allowed, rule = True, ""

    if allowed and access == WRITE and not writable and (user or m.cr0 & Cr0.WP):
        allowed, rule = False, "paging: a write to a read-only page"
    if allowed and access == FETCH and not executable:
        allowed, rule = False, "paging: a fetch from a no-execute page"
    if not allowed:
        raise _page_fault(m, linear, access, user, ERROR_PRESENT, rule)


def _page_fault(m: Machine, linear: int, access: int, user: bool, cause: int, rule: str) -> Fault:
    """#PF with its error code (SDM Vol. 3A, 4.7); CR2 is the faulting linear address."""
    error = cause
    if access == WRITE:
        error |= ERROR_WRITE
    if user:
        error |= ERROR_USER
    if access == FETCH and (m.cr4 & Cr4.SMEP or m.efer & Efer.NXE):
        error |= ERROR_FETCH
    return Fault(Vector.PF, error, rule, cr2=linear)
