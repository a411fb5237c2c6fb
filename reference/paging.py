"""4-level paging: from a linear address to a physical page, or #PF (SDM Vol. 3A, chapter 4)."""

from __future__ import annotations

import struct
from typing import Final

from reference.bits import AC, MASK64
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
        m.copied.append(frame)
        if frame in m.code_frames:
            m.user.fetches.clear()
            m.user32.fetches.clear()
            m.supervisor.fetches.clear()
    return page


def translate(m: Machine, linear: int, access: int, user: bool, implicit: bool = False) -> int:
    """The physical page number of a canonical `linear` address, accessed and dirty flags set, or #PF (SDM Vol. 3A, 5.5 to 5.8).

    `user` is a user-mode access (CPL 3 and not implicit); `implicit` a supervisor access to a system structure, for which
    RFLAGS.AC does not lift SMAP (SDM Vol. 3A, 5.6.1).
    """
    table, common, combined = m.paging_structures.get(linear >> 21) or _walk_to_page_table(m, linear, access, user)
    entry = _entry(m, table, linear, 12, access, user)
    common &= entry
    _check_rights(m, linear, access, user, implicit, common, combined | entry)

    if not common & ACCESSED or (access == WRITE and not entry & DIRTY):
        _mark(m, linear, access)
    return (entry & ADDRESS) >> 12


_SHIFTS: Final = (39, 30, 21, 12)


def _walk_to_page_table(m: Machine, linear: int, access: int, user: bool) -> tuple[int, int, int]:
    """(address of the page table, bits set in all entries on the way, bits set in any); kept, where nothing has to be marked any more."""
    table, common, combined = m.cr3 & ADDRESS, MASK64, 0
    for shift in _SHIFTS[:3]:
        entry = _entry(m, table, linear, shift, access, user)
        if entry & PAGE_SIZE:
            raise NotModelled("large page")
        common &= entry
        combined |= entry
        table = entry & ADDRESS
    if common & ACCESSED:
        m.paging_structures[linear >> 21] = table, common, combined
    return table, common, combined


def _entry(m: Machine, table: int, linear: int, shift: int, access: int, user: bool) -> int:
    """One entry on the way, present and without a reserved bit (SDM Vol. 3A, 5.7)."""
    page = m.pages.get(table >> 12) or page_of(m, table >> 12)
    entry: int = _QWORD.unpack_from(page, (linear >> shift & 0x1FF) * 8)[0]
    if not entry & PRESENT:
        raise _page_fault(m, linear, access, user, 0, "SDM Vol. 3A, 5.7: the translation is not present")
    if (entry >> 32 and entry & _reserved(m)) or (shift == 39 and entry & PAGE_SIZE):
        rule = "SDM Vol. 3A, 5.7: a reserved bit is set in a paging-structure entry"
        raise _page_fault(m, linear, access, user, ERROR_PRESENT | ERROR_RESERVED, rule)
    return entry


def _mark(m: Machine, linear: int, access: int) -> None:
    """Set the accessed flag of every entry on the way, and the dirty flag of the last on a write (SDM Vol. 3A, 5.8)."""
    table = m.cr3 & ADDRESS
    for shift in _SHIFTS:
        offset = (linear >> shift & 0x1FF) * 8
        page = page_of(m, table >> 12)
        entry: int = _QWORD.unpack_from(page, offset)[0]
        wanted = entry | ACCESSED | (DIRTY if access == WRITE and shift == 12 else 0)
        if wanted != entry:
            _QWORD.pack_into(writable_page(m, table >> 12), offset, wanted)
        table = entry & ADDRESS


def _reserved(m: Machine) -> int:
    """Bits that must be 0 in every entry, none below bit 32: the address bits past MAXPHYADDR, NX while EFER.NXE is 0 (SDM Vol. 3A, 5.5.4).

    A PML4 entry maps no page, so its PS bit is reserved as well.
    """
    width = m.profile.physical_address_bits
    beyond = ADDRESS >> width << width
    return beyond if m.efer & Efer.NXE else beyond | NO_EXECUTE


def _check_rights(m: Machine, linear: int, access: int, user: bool, implicit: bool, common: int, combined: int) -> None:
    """Raise #PF unless the entries together allow the access: `common` has the bits set in all, `combined` in any (SDM Vol. 3A, 5.6.1)."""
    user_page = common & USER
    if user:
        allowed, rule = bool(user_page), "SDM Vol. 3A, 5.6.1: a user-mode access to a supervisor page"
    elif user_page and access == FETCH:
        allowed, rule = not m.cr4 & Cr4.SMEP, "SDM Vol. 3A, 5.6.1: a supervisor fetch from a user page with CR4.SMEP"
    elif user_page:
        lifted = bool(m.rflags & AC) and not implicit
        allowed, rule = not m.cr4 & Cr4.SMAP or lifted, "SDM Vol. 3A, 5.6.1: a supervisor access to a user page with CR4.SMAP and AC clear"
    else:
        allowed, rule = True, ""

    if allowed and access == WRITE and not common & WRITABLE and (user or m.cr0 & Cr0.WP):
        allowed, rule = False, "SDM Vol. 3A, 5.6.1: a write to a read-only page"
    if allowed and access == FETCH and combined & NO_EXECUTE:
        allowed, rule = False, "SDM Vol. 3A, 5.6.1: a fetch from a no-execute page"
    if not allowed:
        raise _page_fault(m, linear, access, user, ERROR_PRESENT, rule)


def _page_fault(m: Machine, linear: int, access: int, user: bool, cause: int, rule: str) -> Fault:
    """#PF with its error code (SDM Vol. 3A, 5.7); CR2 is the faulting linear address."""
    error = cause
    if access == WRITE:
        error |= ERROR_WRITE
    if user:
        error |= ERROR_USER
    if access == FETCH and (m.cr4 & Cr4.SMEP or m.efer & Efer.NXE):
        error |= ERROR_FETCH
    return Fault(Vector.PF, error, rule, cr2=linear)
