"""Registers of an image as the save area of SMM holds them, and back (APM Vol. 2, 10.2.3, table 10-1)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Final, NamedTuple

from fuzzer.cores.guest.mailbox import REGISTERS_LOADED, SAVE_BYTES, SMBASE
from fuzzer.cores.guest.paging import read_linear
from fuzzer.cores.guest.watch import Watch
from reference.bits import DR6_FIXED, FIXED, MASK32
from reference.image import PAGE, REGISTERS, SEGMENTS, Image
from reference.profiles import Cr0, Cr4, Efer

_FIRST: Final = 0xFC00
"""The offset from SMBASE at which the save area begins, as the harness copies it."""
_REVISION: Final = 0x0002_0064
_EFER: Final = struct.Struct("<Q")
_EFER_AT: Final = 0xFED0
_QUADS: Final = (
    "cr4", "cr3", "cr0", "dr7", "dr6", "rflags", "rip", "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi", "rsi", "rbp", "rsp",
    "rbx", "rdx", "rcx", "rax",
)  # fmt: skip
_QUADS_AT: Final = 0xFF48
_QUADS_FORM: Final = struct.Struct(f"<{len(_QUADS)}Q")
_TABLES: Final = (*SEGMENTS, "gdtr", "ldtr", "idtr", "tr")
"""All in one form: selector, attributes, limit, base."""
_TABLES_AT: Final = 0xFE00
_TABLES_FORM: Final = struct.Struct("<" + "HHIQ" * len(_TABLES))
_ENTRY: Final = struct.Struct("<HHIQ")
_SMBASE_AT: Final = 0xFF00
_REVISION_AT: Final = 0xFEFC
_CS_AT, _SS_AT = (_TABLES_AT + _ENTRY.size * _TABLES.index(name) - _FIRST for name in ("cs", "ss"))
_VALID: Final = 0x100
"""An attribute by which Bochs tells a segment register that was loaded from one that holds a null selector; QEMU leaves it alone."""
_LONG_MODE: Final = Efer.LME | Efer.LMA
_PAE: Final = Cr4.PAE
_PAGING: Final = Cr0.PE | Cr0.ET | Cr0.PG
_QUADS_OF: Final = itemgetter(*_QUADS)
_SELECTORS_OF: Final = itemgetter(*SEGMENTS, "ldtr", "tr")
_IN_ORDER: Final = itemgetter(*REGISTERS)


class Hidden(NamedTuple):
    """A segment register with its hidden part; attributes are bits 8 to 23 of the descriptor's upper half, the limit's left out."""

    selector: int
    attributes: int
    limit: int
    base: int


_NOTHING: Final = Hidden(0, 0, 0, 0)


def _gdt(image: Image, watch: Watch) -> bytes:
    """The GDT, which may go over the end of a page."""
    base, size = image.registers["gdtr_base"], min(image.registers["gdtr_limit"], PAGE - 1) + 1
    address = watch.physical(image.pages, image.registers["cr3"], base)
    if address is None or address % PAGE + size > PAGE or address // PAGE not in image.pages:
        return read_linear(image, base, size)
    return image.pages[address // PAGE][address % PAGE : address % PAGE + size]


@lru_cache(maxsize=2048)
def _hidden(gdt: bytes, selectors: tuple[int, ...]) -> tuple[Hidden, ...]:
    """What ES to GS, LDTR and TR hold once they have been loaded from a GDT."""
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


def save_area(image: Image, watch: Watch) -> bytes:
    """The save area from which RSM makes the machine of `image`."""
    registers = image.registers
    gdt = _gdt(image, watch)
    es, cs, ss, ds, fs, gs, ldtr, tr = _hidden(gdt, _SELECTORS_OF(registers))
    fs = Hidden(fs.selector, fs.attributes, fs.limit, registers["fs_base"])
    gs = Hidden(gs.selector, gs.attributes, gs.limit, registers["gs_base"])
    gdtr, idtr = (Hidden(0, 0, registers[f"{name}_limit"], registers[f"{name}_base"]) for name in ("gdtr", "idtr"))
    return _area(registers["efer"], _QUADS_OF(registers), (es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr))


def _area(efer: int, quads: tuple[int, ...], tables: tuple[Hidden, ...]) -> bytes:
    area = bytearray(SAVE_BYTES)
    _EFER.pack_into(area, _EFER_AT - _FIRST, efer)
    _QUADS_FORM.pack_into(area, _QUADS_AT - _FIRST, *quads)
    _TABLES_FORM.pack_into(area, _TABLES_AT - _FIRST, *chain.from_iterable(tables))
    struct.pack_into("<I", area, _SMBASE_AT - _FIRST, SMBASE)
    struct.pack_into("<I", area, _REVISION_AT - _FIRST, _REVISION)
    return bytes(area)


def harness_area(cr3: int, rip: int) -> bytes:
    """The save area from which RSM goes on in 64-bit code of the harness, outside of SMM, at CPL 0."""
    values = {"cr4": _PAE, "cr3": cr3, "cr0": _PAGING, "dr6": DR6_FIXED, "rflags": FIXED, "rip": rip}
    code, data = Hidden(0x08, 0xA09B | _VALID, MASK32, 0), Hidden(0x10, 0xC093 | _VALID, MASK32, 0)
    special = {"cs": code, "gdtr": _NOTHING, "ldtr": _NOTHING, "idtr": _NOTHING, "tr": Hidden(0, 0x8B | _VALID, 0x67, 0)}
    tables = tuple(special.get(name, data) for name in _TABLES)
    return _area(_LONG_MODE, tuple(values.get(name, 0) for name in _QUADS), tables)


def registers_of(area: bytes, loaded: tuple[int, ...]) -> dict[str, int]:
    """Every register of an observation, from a save area and from those that the harness read itself."""
    found = dict(zip(REGISTERS_LOADED, loaded, strict=True))
    (found["efer"],) = _EFER.unpack_from(area, _EFER_AT - _FIRST)
    found.update(zip(_QUADS, _QUADS_FORM.unpack_from(area, _QUADS_AT - _FIRST), strict=True))
    tables = _TABLES_FORM.unpack_from(area, _TABLES_AT - _FIRST)
    found.update(zip(_TABLES, tables[0::4], strict=True))
    limits, bases = dict(zip(_TABLES, tables[2::4], strict=True)), dict(zip(_TABLES, tables[3::4], strict=True))
    found["fs_base"], found["gs_base"] = bases["fs"], bases["gs"]
    for name in ("gdtr", "idtr"):
        found[f"{name}_limit"], found[f"{name}_base"] = limits[name] & 0xFFFF, bases[name]
    return found


def in_order(found: Mapping[str, int]) -> tuple[int, ...]:
    """Registers in the order of REGISTERS."""
    return _IN_ORDER(found)  # type: ignore[no-any-return]


def cpl(area: bytes) -> int:
    """The privilege level that was interrupted: the DPL of SS."""
    _, attributes, _, _ = _ENTRY.unpack_from(area, _SS_AT)
    return int(attributes) >> 5 & 3


def code_bits(area: bytes) -> int:
    """How wide the code was that was interrupted: 64, or 32 in compatibility mode."""
    _, attributes, _, _ = _ENTRY.unpack_from(area, _CS_AT)
    return 64 if attributes & 0x2000 else 32
