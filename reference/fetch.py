"""From RIP to the instruction that stands there, after the faults that come before its execution."""

from __future__ import annotations

from typing import Final

from iced_x86 import Mnemonic

from reference.bits import MASK32, MASK64, canonical
from reference.compatibility import is_flat
from reference.debug import check_code_breakpoint
from reference.decode import LONGEST, Dialect, Instruction, InvalidEncoding, Truncated, decode
from reference.faults import Fault, NotModelled, Vector, require, undefined_opcode
from reference.instructions import lookup
from reference.instructions.table32 import lookup32
from reference.machine import Machine, code_address
from reference.paging import FETCH, page_of, translate

_DIALECTS: Final = [Dialect(amd, bits) for amd in (False, True) for bits in (64, 32)]
_DECODED: dict[Dialect, dict[bytes, Instruction]] = {dialect: {} for dialect in _DIALECTS}
_PAGES: dict[Dialect, dict[bytes, dict[int, Instruction]]] = {dialect: {} for dialect in _DIALECTS}
"""What has been decoded, by the bytes alone: of one instruction, and of a page by offset."""
_DECODED_LIMIT: Final = 10_000
_PAGES_LIMIT: Final = 500


def fetch(m: Machine) -> Instruction:
    """The instruction at RIP, after the faults that come before its execution (SDM Vol. 3A, Table 7-2).

    It is fetched as far as it goes: the second page is touched only if it is needed.
    """
    if m.armed:
        check_code_breakpoint(m)
    segmented = m.compatibility
    linear, room = (code_address(m), _room(m)) if segmented else (m.rip, LONGEST)
    page, offset = _fetch_page(m, linear), linear & 0xFFF
    keep = isinstance(page, bytes) and not m.armed_oddly and not (segmented and _bounded(m))
    known = _known_instructions(m, page) if keep else {}
    instruction = known.get(offset)
    if instruction is None:
        code = bytes(page[offset : offset + room])
        try:
            instruction = known[offset] = _decoded(m, code)
        except Truncated:
            return _fetch_longer(m, linear, code, room)
    return instruction


def _room(m: Machine) -> int:
    """How many bytes an instruction at EIP may have before the limit of CS ends it (SDM Vol. 3A, 6.3)."""
    require(m.rip <= m.cs.limit, Vector.GP, 0, "SDM Vol. 3A, 6.3: an instruction is fetched from beyond the limit of CS")
    if max(m.rip, code_address(m)) + LONGEST > MASK32:
        raise NotModelled("an instruction at the end of 4 GBytes")
    return min(LONGEST, m.cs.limit - m.rip + 1)


def _bounded(m: Machine) -> bool:
    """EIP is no linear address, or the page holds offsets at which nothing may be fetched: each fetch has to be checked."""
    return not is_flat(m.cs) or m.rip >> 12 == MASK32 >> 12


def _fetch_longer(m: Machine, linear: int, code: bytes, room: int) -> Instruction:
    """The instruction that begins with `code` and goes on where the next page begins, or beyond the limit of CS."""
    if len(code) < room:
        rest = _fetch_rest(m, linear, code)
        code += bytes(rest[: room - len(code)])
    try:
        return _decoded(m, code)
    except Truncated:
        _refuse_invalid(m, code, "segment")
    raise Fault(Vector.GP, 0, "SDM Vol. 3A, 6.3: an instruction goes on beyond the limit of CS")


def _fetch_rest(m: Machine, linear: int, code: bytes) -> bytes | bytearray:
    """The next page, for an instruction that goes on there."""
    try:
        return _fetch_page(m, (linear + len(code)) & MASK64)
    except Fault:
        _refuse_invalid(m, code, "page")
        raise


def _refuse_invalid(m: Machine, code: bytes, where: str) -> None:
    """Leave the model where the rest of an instruction cannot be fetched and it would be invalid: how far such a one goes nobody says."""
    dialect = _dialect(m)
    try:
        instruction = decode(code + bytes(LONGEST - len(code)), dialect, _LOOKUPS[dialect.bits])
    except InvalidEncoding:
        raise NotModelled(f"an invalid instruction at the end of a {where}") from None
    if instruction.mnemonic == Mnemonic.UD0:
        raise NotModelled(f"ud0 at the end of a {where}: not every processor reads its ModRM byte")  # SDM Vol. 2B, UD


def _fetch_page(m: Machine, linear: int) -> bytes | bytearray:
    """The page that `linear` is fetched from."""
    require(canonical(linear), Vector.GP, 0, "SDM Vol. 1, 3.3.7.1: an instruction is fetched from a non-canonical address")
    frame = translate(m, linear, FETCH, m.cpl == 3)
    m.code_frames.add(frame)
    return page_of(m, frame)


def _known_instructions(m: Machine, page: bytes | bytearray) -> dict[int, Instruction]:
    """Those of a page that is as it was in the image, by offset; later fetches from it go straight to them."""
    assert isinstance(page, bytes)
    pages = _PAGES[_dialect(m)]
    known = pages.get(page)
    if known is None:
        if len(pages) >= _PAGES_LIMIT:
            pages.clear()
        known = pages[page] = {}
    m.translations.fetches[m.rip >> 12] = known
    return known


_LOOKUPS: Final = {64: lookup, 32: lookup32}


_INTEL, _AMD = ({bits: Dialect(amd, bits) for bits in (64, 32)} for amd in (False, True))


def _dialect(m: Machine) -> Dialect:
    return (_AMD if m.profile.vendor == "amd" else _INTEL)[32 if m.compatibility else 64]


def _decoded(m: Machine, code: bytes) -> Instruction:
    dialect = _dialect(m)
    decoded = _DECODED[dialect]
    instruction = decoded.get(code)
    if instruction is None:
        try:
            instruction = decode(code, dialect, _LOOKUPS[dialect.bits])
        except InvalidEncoding:
            undefined_opcode("SDM Vol. 2A, 2.2: the bytes are no instruction of this mode")
        if len(decoded) >= _DECODED_LIMIT:
            decoded.clear()
        decoded[code] = instruction
    return instruction
