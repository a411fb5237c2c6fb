"""Registers of an image as the save area of SMM holds them, and back (APM Vol. 2, 10.2.3, table 10-1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fuzzer.cores.guest.mailbox import REGISTERS_LOADED, SAVE_BYTES, SMBASE
from fuzzer.cores.guest.paging import read_linear
from reference.bits import DR6_FIXED, FIXED
from reference.image import REGISTERS, SEGMENTS, Image
from reference.profiles import Cr0, Cr4, Efer

_FIRST: Final = 0xFC00
"""The offset from SMBASE at which the save area begins, as the harness copies it."""
_REVISION: Final = 0x0002_0064
_BASES: Final = {"fs": "fs_base", "gs": "gs_base"}

_QUADS: Final = {
    "efer": 0xFED0, "cr4": 0xFF48, "cr3": 0xFF50, "cr0": 0xFF58, "dr7": 0xFF60, "dr6": 0xFF68, "rflags": 0xFF70, "rip": 0xFF78,
    "r15": 0xFF80, "r14": 0xFF88, "r13": 0xFF90, "r12": 0xFF98, "r11": 0xFFA0, "r10": 0xFFA8, "r9": 0xFFB0, "r8": 0xFFB8,
    "rdi": 0xFFC0, "rsi": 0xFFC8, "rbp": 0xFFD0, "rsp": 0xFFD8, "rbx": 0xFFE0, "rdx": 0xFFE8, "rcx": 0xFFF0, "rax": 0xFFF8,
}  # fmt: skip
_SEGMENTS_AT: Final = {name: 0xFE00 + 16 * number for number, name in enumerate(SEGMENTS)}
"""ES to GS; then GDTR, LDTR, IDTR and TR in the same form: selector, attributes, limit, base."""
_GDTR, _LDTR, _IDTR, _TR = 0xFE60, 0xFE70, 0xFE80, 0xFE90
_SMBASE_AT: Final = 0xFF00
_REVISION_AT: Final = 0xFEFC
_ENTRY: Final = struct.Struct("<HHIQ")
_VALID: Final = 0x100
"""An attribute by which Bochs tells a segment register that was loaded from one that holds a null selector; QEMU leaves it alone."""
_LONG_MODE: Final = Efer.LME | Efer.LMA
_PAE: Final = Cr4.PAE
_PAGING: Final = Cr0.PE | Cr0.ET | Cr0.PG


@dataclass(frozen=True, slots=True)
class Hidden:
    """A segment register with its hidden part; attributes are bits 8 to 23 of the descriptor's upper half, the limit's left out."""

    selector: int
    attributes: int
    limit: int
    base: int


def hidden_parts(image: Image) -> dict[str, Hidden]:
    """What ES to GS, LDTR and TR hold once they have been loaded from the image's GDT."""
    registers = image.registers
    gdt = read_linear(image, registers["gdtr_base"], min(registers["gdtr_limit"], 0xFFF) + 1)
    names = (*SEGMENTS, "ldtr", "tr")
    parts = _hidden(gdt, tuple(registers[name] for name in names))
    found = dict(zip(names, parts, strict=True))
    for name, base in _BASES.items():
        part = found[name]
        found[name] = Hidden(part.selector, part.attributes, part.limit, registers[base])
    return found


@lru_cache(maxsize=512)
def _hidden(gdt: bytes, selectors: tuple[int, ...]) -> tuple[Hidden, ...]:
    *ordinary, ldtr, tr = selectors
    return (*(_load(gdt, each, wide=False) for each in ordinary), _load(gdt, ldtr, wide=True), _load(gdt, tr, wide=True))


def _load(gdt: bytes, selector: int, wide: bool) -> Hidden:
    """The hidden part that a selector brings; system descriptors are 16 bytes wide (SDM Vol. 3A, 3.4.5, 8.2.3)."""
    offset = selector & 0xFFF8
    if not selector & 0xFFFC:
        return Hidden(selector, 0, 0, 0)
    low, high = struct.unpack("<QQ", gdt[offset : offset + 16].ljust(16, b"\0"))
    base = low >> 16 & 0xFF_FFFF | (low >> 56) << 24 | ((high & 0xFFFF_FFFF) << 32 if wide else 0)
    limit = low & 0xFFFF | low >> 32 & 0xF_0000
    if low >> 55 & 1:
        limit = limit << 12 | 0xFFF
    return Hidden(selector, low >> 40 & 0xF0FF | _VALID, limit, base)


def save_area(image: Image) -> bytes:
    """The save area from which RSM makes the machine of `image`."""
    registers, area = image.registers, bytearray(SAVE_BYTES)
    for name, place in _QUADS.items():
        struct.pack_into("<Q", area, place - _FIRST, registers[name])
    parts = hidden_parts(image)
    places = {**_SEGMENTS_AT, "ldtr": _LDTR, "tr": _TR}
    for name, place in places.items():
        part = parts[name]
        _ENTRY.pack_into(area, place - _FIRST, part.selector, part.attributes, part.limit, part.base)
    _ENTRY.pack_into(area, _GDTR - _FIRST, 0, 0, registers["gdtr_limit"], registers["gdtr_base"])
    _ENTRY.pack_into(area, _IDTR - _FIRST, 0, 0, registers["idtr_limit"], registers["idtr_base"])
    struct.pack_into("<I", area, _SMBASE_AT - _FIRST, SMBASE)
    struct.pack_into("<I", area, _REVISION_AT - _FIRST, _REVISION)
    return bytes(area)


def harness_area(cr3: int, rip: int) -> bytes:
    """The save area from which RSM goes on in 64-bit code of the harness, outside of SMM, at CPL 0."""
    area = bytearray(SAVE_BYTES)
    values = {"efer": _LONG_MODE, "cr4": _PAE, "cr3": cr3, "cr0": _PAGING, "dr6": DR6_FIXED, "rflags": FIXED, "rip": rip}
    for name, value in values.items():
        struct.pack_into("<Q", area, _QUADS[name] - _FIRST, value)
    for name, place in _SEGMENTS_AT.items():
        _ENTRY.pack_into(area, place - _FIRST, *((0x08, 0xA09B | _VALID) if name == "cs" else (0x10, 0xC093 | _VALID)), 0xFFFF_FFFF, 0)
    _ENTRY.pack_into(area, _TR - _FIRST, 0, 0x8B | _VALID, 0x67, 0)
    struct.pack_into("<I", area, _SMBASE_AT - _FIRST, SMBASE)
    struct.pack_into("<I", area, _REVISION_AT - _FIRST, _REVISION)
    return bytes(area)


def registers_of(area: bytes, loaded: tuple[int, ...]) -> dict[str, int]:
    """Every register of an observation, from a save area and from those that the harness read itself."""
    found = dict(zip(REGISTERS_LOADED, loaded, strict=True))
    for name, place in _QUADS.items():
        (found[name],) = struct.unpack_from("<Q", area, place - _FIRST)
    for name, place in (*_SEGMENTS_AT.items(), ("ldtr", _LDTR), ("tr", _TR)):
        selector, _, _, base = _ENTRY.unpack_from(area, place - _FIRST)
        found[name] = selector
        if name in _BASES:
            found[_BASES[name]] = base
    for name, place in (("gdtr", _GDTR), ("idtr", _IDTR)):
        _, _, limit, base = _ENTRY.unpack_from(area, place - _FIRST)
        found[f"{name}_limit"], found[f"{name}_base"] = limit & 0xFFFF, base
    return found


def in_order(found: dict[str, int]) -> tuple[int, ...]:
    """Registers in the order of REGISTERS."""
    return tuple(found[name] for name in REGISTERS)


def cpl(area: bytes) -> int:
    """The privilege level that was interrupted: the DPL of SS."""
    _, attributes, _, _ = _ENTRY.unpack_from(area, _SEGMENTS_AT["ss"] - _FIRST)
    return int(attributes) >> 5 & 3


def code_bits(area: bytes) -> int:
    """How wide the code was that was interrupted: 64, or 32 in compatibility mode."""
    _, attributes, _, _ = _ENTRY.unpack_from(area, _SEGMENTS_AT["cs"] - _FIRST)
    return 64 if attributes & 0x2000 else 32
