"""From RIP to the instruction that stands there, after the faults that come before its execution."""

from __future__ import annotations

from typing import Final

from reference.bits import MASK64, canonical
from reference.debug import ENABLES, check_code_breakpoint
from reference.decode import LONGEST, Instruction, InvalidEncoding, Truncated, decode
from reference.faults import Vector, require, undefined_opcode
from reference.image import PAGE
from reference.instructions import lookup
from reference.machine import Machine
from reference.paging import FETCH, page_of, translate

_DECODED: dict[tuple[bytes, bool], Instruction] = {}
_DECODED_LIMIT: Final = 50_000


def fetch(m: Machine) -> Instruction:
    """The instruction at RIP, after the faults that come before its execution (SDM Vol. 3A, Table 7-2)."""
    if m.dr7 & ENABLES:
        check_code_breakpoint(m)
    frame = m.translations.fetches.get(m.rip >> 12)
    offset = m.rip & 0xFFF
    if frame is None or offset > PAGE - LONGEST:
        return _fetch_slowly(m)
    return _decoded(m, bytes(m.pages[frame][offset : offset + LONGEST]))


def _fetch_slowly(m: Machine) -> Instruction:
    """Fetch byte after byte as far as the instruction goes: the second page is touched only if it is needed."""
    code = _fetch_page(m, m.rip)[:LONGEST]
    try:
        return _decoded(m, code)
    except Truncated:
        rest = _fetch_page(m, (m.rip + len(code)) & MASK64)
        return _decoded(m, (code + rest)[:LONGEST])


def _fetch_page(m: Machine, linear: int) -> bytes:
    """The bytes from `linear` to the end of its page."""
    require(canonical(linear), Vector.GP, 0, "SDM Vol. 1, 3.3.7.1: an instruction is fetched from a non-canonical address")
    frame = translate(m, linear, FETCH, m.cpl == 3)
    page = page_of(m, frame)
    if m.caching:
        m.translations.fetches[linear >> 12] = frame
    return bytes(page[linear & 0xFFF :])


def _decoded(m: Machine, code: bytes) -> Instruction:
    amd = m.profile.vendor == "amd"
    instruction = _DECODED.get((code, amd))
    if instruction is None:
        try:
            instruction = decode(code, amd, lookup)
        except InvalidEncoding:
            undefined_opcode("SDM Vol. 2A, 2.2: the bytes are no instruction of 64-bit mode")
        if len(_DECODED) >= _DECODED_LIMIT:
            _DECODED.clear()
        _DECODED[code, amd] = instruction
    return instruction
