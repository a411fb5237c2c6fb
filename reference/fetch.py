"""From RIP to the instruction that stands there, after the faults that come before its execution."""

from __future__ import annotations

from typing import Final

from reference.bits import MASK64, canonical
from reference.debug import check_code_breakpoint
from reference.decode import LONGEST, Instruction, InvalidEncoding, Truncated, decode
from reference.faults import Fault, NotModelled, Vector, require, undefined_opcode
from reference.instructions import lookup
from reference.machine import Machine
from reference.paging import FETCH, page_of, translate

_DECODED: dict[bool, dict[bytes, Instruction]] = {False: {}, True: {}}
_PAGES: dict[bool, dict[bytes, dict[int, Instruction]]] = {False: {}, True: {}}
"""What has been decoded, by the bytes alone: of one instruction, and of a page by offset. The key is whether AMD decodes."""
_DECODED_LIMIT: Final = 10_000
_PAGES_LIMIT: Final = 500


def fetch(m: Machine) -> Instruction:
    """The instruction at RIP, after the faults that come before its execution (SDM Vol. 3A, Table 7-2)."""
    known = m.translations.fetches.get(m.rip >> 12)
    instruction = known.get(m.rip & 0xFFF) if known is not None else None
    return instruction if instruction is not None and m.rip not in m.armed else _fetch_slowly(m)


def _fetch_slowly(m: Machine) -> Instruction:
    """Fetch as far as the instruction goes: the second page is touched only if it is needed."""
    if m.armed:
        check_code_breakpoint(m)
    page, offset = _fetch_page(m, m.rip), m.rip & 0xFFF
    try:
        instruction = _decoded(m, bytes(page[offset : offset + LONGEST]))
    except Truncated:
        code = bytes(page[offset:])
        rest = _fetch_rest(m, code)
        return _decoded(m, code + bytes(rest[: LONGEST - len(code)]))
    if isinstance(page, bytes) and not m.armed_oddly:
        _remember(m, page, offset, instruction)
    return instruction


def _fetch_rest(m: Machine, code: bytes) -> bytes | bytearray:
    """The next page, for an instruction that goes on there. How far an invalid one goes nobody says."""
    try:
        return _fetch_page(m, (m.rip + len(code)) & MASK64)
    except Fault:
        try:
            decode(code + bytes(LONGEST - len(code)), m.profile.vendor == "amd", lookup)
        except InvalidEncoding:
            raise NotModelled("an invalid instruction at the end of a page") from None
        raise


def _fetch_page(m: Machine, linear: int) -> bytes | bytearray:
    """The page that `linear` is fetched from."""
    require(canonical(linear), Vector.GP, 0, "SDM Vol. 1, 3.3.7.1: an instruction is fetched from a non-canonical address")
    frame = translate(m, linear, FETCH, m.cpl == 3)
    m.code_frames.add(frame)
    return page_of(m, frame)


def _remember(m: Machine, page: bytes, offset: int, instruction: Instruction) -> None:
    """Let later fetches from this page go straight to its instructions: it is as it was in the image."""
    pages = _PAGES[m.profile.vendor == "amd"]
    if len(pages) >= _PAGES_LIMIT:
        pages.clear()
    known = pages.setdefault(page, {})
    known[offset] = instruction
    m.translations.fetches[m.rip >> 12] = known


def _decoded(m: Machine, code: bytes) -> Instruction:
    amd = m.profile.vendor == "amd"
    decoded = _DECODED[amd]
    instruction = decoded.get(code)
    if instruction is None:
        try:
            instruction = decode(code, amd, lookup)
        except InvalidEncoding:
            undefined_opcode("SDM Vol. 2A, 2.2: the bytes are no instruction of 64-bit mode")
        if len(decoded) >= _DECODED_LIMIT:
            decoded.clear()
        decoded[code] = instruction
    return instruction
