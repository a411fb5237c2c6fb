"""Data accesses by linear address: canonical form, alignment, breakpoints, paging, then the bytes."""

from __future__ import annotations

import struct
from typing import Final

from reference.bits import AC, MASK64, canonical
from reference.debug import note_data_access
from reference.faults import Fault, NotModelled, Vector, require
from reference.image import PAGE
from reference.machine import Machine, Translations
from reference.paging import READ, WRITE, page_of, translate, writable_page
from reference.profiles import Cr0

_FORMATS = {1: struct.Struct("<B"), 2: struct.Struct("<H"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
UNPACK: Final = {size: form.unpack_from for size, form in _FORMATS.items()}
PACK: Final = {size: form.pack_into for size, form in _FORMATS.items()}

IMAGE: Final = 2
"""Bytes of an RFLAGS image that can hold an undefined flag."""


def load(m: Machine, linear: int, size: int, stack: bool = False) -> int:
    """The `size` bytes (1, 2, 4 or 8) at `linear`, as the current privilege level reads them; `stack` accesses fault with #SS."""
    frame = m.translations.reads.get(linear >> 12)
    offset = linear & 0xFFF
    if frame is None or offset + size > PAGE:
        return _load_slowly(m, linear, size, stack)
    value: int = UNPACK[size](m.pages[frame], offset)[0]
    return value


def store(m: Machine, linear: int, size: int, value: int, stack: bool = False) -> None:
    """Write the low `size` bytes of `value` at `linear`, whole or not at all."""
    page = m.translations.writes.get(linear >> 12)
    offset = linear & 0xFFF
    if page is None or offset + size > PAGE:
        _store_slowly(m, linear, size, value, stack)
        return
    PACK[size](page, offset, value)
    if m.undefined_words:
        _forget_linear(m, linear, size, m.translations.user)


def copy_in_pages(m: Machine, come_from: int, go_to: int, step: int, most: int) -> int:
    """Copy up to `most` elements of `step` bytes upwards between two pages that need no further check, as far as neither ends.

    Returns how many were copied: 0 where each has to be looked at by itself.
    """
    frame, page = m.translations.reads.get(come_from >> 12), m.translations.writes.get(go_to >> 12)
    if frame is None or page is None or m.pages[frame] is page or step < 0 or m.undefined_words:
        return 0
    start, target = come_from & 0xFFF, go_to & 0xFFF
    count = min(most, (PAGE - max(start, target)) // step)
    page[target : target + count * step] = m.pages[frame][start : start + count * step]
    return count


def check_store(m: Machine, linear: int, size: int, stack: bool = False) -> None:
    """Raise the fault that a store of `size` bytes would raise, and write nothing: for instructions with two destinations."""
    _places(m, linear, size, WRITE, m.translations, stack)


def check_reachable(m: Machine, linear: int, stack: bool = False) -> None:
    """Raise the fault, alignment aside, that a store of one byte would raise: for pointers that nothing is stored at."""
    _places(m, linear, 1, WRITE, m.translations, stack)


def load_implicit(m: Machine, linear: int, size: int) -> int:
    """Read a descriptor, gate or TSS field: a supervisor access whatever the CPL is (SDM Vol. 3A, 5.6.1)."""
    frame = m.system.reads.get(linear >> 12)
    offset = linear & 0xFFF
    if frame is None or offset + size > PAGE:
        return _gather(_implicit_places(m, linear, size, READ))
    value: int = UNPACK[size](m.pages[frame], offset)[0]
    return value


def store_implicit(m: Machine, linear: int, size: int, value: int) -> None:
    """Write a descriptor's accessed or busy flag, or a word of an interrupt frame, as supervisor."""
    page = m.system.writes.get(linear >> 12)
    offset = linear & 0xFFF
    if page is None or offset + size > PAGE:
        _scatter(_implicit_places(m, linear, size, WRITE), value, size)
    else:
        PACK[size](page, offset, value)
    if m.undefined_words:
        _forget_linear(m, linear, size, user=False)


def check_store_implicit(m: Machine, linear: int, size: int) -> None:
    """Raise the fault that `store_implicit` would raise, and write nothing."""
    if linear >> 12 not in m.system.writes or (linear & 0xFFF) + size > PAGE:
        _implicit_places(m, linear, size, WRITE)


def refuse_undefined(m: Machine, linear: int, size: int) -> None:
    """Leave the model where a POP brought flags that mean nothing into a register: nothing follows what becomes of them there.

    A MOV from such an image is let pass: entry code looks at IF and IOPL in saved flags, which are always defined.
    """
    start = physical(m, linear, m.cpl == 3)
    if any(word < start + size and start < word + IMAGE for word in m.undefined_words):
        raise NotModelled("reads undefined flags from memory")


def physical(m: Machine, linear: int, user: bool) -> int:
    """The physical address of a byte that has just been accessed."""
    frame = (m.user if user else m.supervisor).reads.get(linear >> 12)
    if frame is None:
        frame = translate(m, linear, READ, user)
    return frame << 12 | linear & 0xFFF


_RULE: Final = "SDM Vol. 1, 3.3.7.1: an access at a non-canonical address"
_STACK_RULE: Final = "SDM Vol. 1, 3.3.7.1: a stack access at a non-canonical address"

Place = tuple["bytes | bytearray", int, int]


def _load_slowly(m: Machine, linear: int, size: int, stack: bool) -> int:
    places = _places(m, linear, size, READ, m.translations, stack)
    note_data_access(m, linear, size, write=False)
    return _gather(places)


def _store_slowly(m: Machine, linear: int, size: int, value: int, stack: bool) -> None:
    places = _places(m, linear, size, WRITE, m.translations, stack)
    note_data_access(m, linear, size, write=True)
    _scatter(places, value, size)
    if m.undefined_words:
        _forget_linear(m, linear, size, m.translations.user)


def _gather(places: list[Place]) -> int:
    page, start, end = places[0]
    if len(places) == 1:
        return int.from_bytes(page[start:end], "little")
    return int.from_bytes(b"".join(bytes(page[start:end]) for page, start, end in places), "little")


def _scatter(places: list[Place], value: int, size: int) -> None:
    data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    for page, start, end in places:
        assert isinstance(page, bytearray)
        page[start:end] = data[: end - start]
        data = data[end - start :]


def _places(m: Machine, linear: int, size: int, access: int, translations: Translations, stack: bool) -> list[Place]:
    """Where the bytes are, once every check has passed: one place, or two where the access crosses a page."""
    last = (linear + size - 1) & MASK64
    vector = Vector.SS if stack else Vector.GP
    require(canonical(linear) and canonical(last), vector, 0, _STACK_RULE if stack else _RULE)
    if translations.user and linear & (size - 1) and m.rflags & AC and m.cr0 & Cr0.AM:
        _alignment_fault(m, linear, last, access)

    return _split(m, linear, size, access, translations)


def _alignment_fault(m: Machine, linear: int, last: int, access: int) -> None:
    """#AC(0) (SDM Vol. 3A, 7.15, Interrupt 17). Whether it comes before #PF the manual does not say, so that is left open."""
    try:
        translate(m, linear, access, user=True)
        translate(m, last, access, user=True)
    except Fault:
        raise NotModelled("misaligned access to a page that faults") from None
    raise Fault(Vector.AC, 0, "SDM Vol. 3A, 7.15: a misaligned access at CPL 3 with CR0.AM and RFLAGS.AC")


def _implicit_places(m: Machine, linear: int, size: int, access: int) -> list[Place]:
    if not (canonical(linear) and canonical((linear + size - 1) & MASK64)):
        raise NotModelled("a system structure at a non-canonical address")
    return _split(m, linear, size, access, m.system)


def _split(m: Machine, linear: int, size: int, access: int, translations: Translations) -> list[Place]:
    """The one or two places of an access; both pages are translated before anything is written."""
    page = _writable if access == WRITE else _readable
    offset = linear & 0xFFF
    if offset + size <= PAGE:
        return [(page(m, linear, translations), offset, offset + size)]
    first = PAGE - offset
    return [(page(m, linear, translations), offset, PAGE), (page(m, (linear + first) & MASK64, translations), 0, size - first)]


def _readable(m: Machine, linear: int, translations: Translations) -> bytes | bytearray:
    """The page of `linear`, translated through the cache, which is filled where no access to the page needs another check."""
    frame = translations.reads.get(linear >> 12)
    if frame is None and translations is m.supervisor:
        frame = m.system.reads.get(linear >> 12)  # SMAP holds for implicit accesses at least as often (SDM Vol. 3A, 5.6.1)
    if frame is None:
        frame = translate(m, linear, READ, translations.user, translations.implicit)
    if translations.caching:
        translations.reads[linear >> 12] = frame
    return page_of(m, frame)


def _writable(m: Machine, linear: int, translations: Translations) -> bytearray:
    """The same for a write; what may be written may be read."""
    page = translations.writes.get(linear >> 12)
    if page is not None:
        return page
    known = m.system if translations is m.supervisor and linear >> 12 in m.system.writes else None
    frame = known.reads[linear >> 12] if known else translate(m, linear, WRITE, translations.user, translations.implicit)
    page = writable_page(m, frame)
    if translations.caching:
        translations.writes[linear >> 12] = page
        translations.reads[linear >> 12] = frame
    return page


def _forget_linear(m: Machine, linear: int, size: int, user: bool) -> None:
    first = min(size, PAGE - (linear & 0xFFF))
    _forget_undefined(m, physical(m, linear, user), first)
    if first < size:
        _forget_undefined(m, physical(m, (linear + first) & MASK64, user), size - first)


def _forget_undefined(m: Machine, address: int, size: int) -> None:
    for known in [word for word in m.undefined_words if word < address + size and address < word + IMAGE]:
        written = sum(0xFF << 8 * n for n in range(IMAGE) if address <= known + n < address + size)
        left = m.undefined_words.pop(known) & ~written
        if left:
            m.undefined_words[known] = left
