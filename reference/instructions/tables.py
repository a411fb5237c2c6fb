"""Descriptor tables, the task register, and asking about selectors (SDM Vol. 2A, 2B and 2D)."""

from __future__ import annotations

from typing import Final

from reference.bits import AC, MASK64, ZF, canonical
from reference.decode import Instruction
from reference.descriptors import SYSTEM_CALL_GATE, SYSTEM_LDT, SYSTEM_TSS_AVAILABLE, SYSTEM_TSS_BUSY, Descriptor, Segment, descriptor_of
from reference.faults import Fault, NotModelled, Vector, require
from reference.machine import Machine
from reference.memory import check_store, load, load_implicit, store, store_implicit
from reference.operands import Memory
from reference.profiles import Cr0, Cr4
from reference.segmentation import descriptor_address, is_null


def _pseudo_descriptor(i: Instruction) -> Memory:
    assert isinstance(i.destination, Memory)
    return i.destination


def _load_table(m: Machine, i: Instruction) -> tuple[int, int]:
    """(base, limit) of an m16&64 operand, after LGDT's and LIDT's checks."""
    name = i.name.upper()
    require(m.cpl == 0, Vector.GP, 0, f"SDM Vol. 2A, {name}: CPL is not 0")
    operand = _pseudo_descriptor(i)
    address = operand.address(m)
    limit = load(m, address, 2, operand.stack)
    base = load(m, (address + 2) & MASK64, 8, operand.stack)
    require(canonical(base), Vector.GP, 0, f"SDM Vol. 2A, {name}: the base is not canonical")
    return base, limit


def lgdt(m: Machine, i: Instruction, end: int) -> int:
    """Load GDTR (SDM Vol. 2A, LGDT/LIDT)."""
    m.gdtr_base, m.gdtr_limit = _load_table(m, i)
    return end


def lidt(m: Machine, i: Instruction, end: int) -> int:
    """Load IDTR (SDM Vol. 2A, LGDT/LIDT)."""
    m.idtr_base, m.idtr_limit = _load_table(m, i)
    return end


def forbid_in_user_mode(m: Machine) -> None:
    """User-mode instruction prevention: SGDT, SIDT, SLDT, SMSW and STR above CPL 0 (SDM Vol. 3A, 2.5, CR4.UMIP)."""
    require(not (m.cr4 & Cr4.UMIP and m.cpl), Vector.GP, 0, UMIP_RULE)


UMIP_RULE: Final = "SDM Vol. 3A, 2.5: CR4.UMIP is set and the CPL is not 0"


def store_table(m: Machine, i: Instruction, end: int) -> int:
    """Store GDTR or IDTR: 2 bytes of limit, 8 of base, at any CPL unless CR4.UMIP is set (SDM Vol. 2B, SGDT and SIDT)."""
    forbid_in_user_mode(m)
    if m.cpl == 3 and m.rflags & AC and m.cr0 & Cr0.AM:
        raise NotModelled("sgdt or sidt with alignment checks")
    base, limit = (m.gdtr_base, m.gdtr_limit) if i.name == "sgdt" else (m.idtr_base, m.idtr_limit)
    operand = _pseudo_descriptor(i)
    address = operand.address(m)
    check_store(m, address, 2, operand.stack)
    try:
        check_store(m, (address + 2) & MASK64, 8, operand.stack)
    except Fault:
        # Whether the limit has been written by then the manual does not say.
        raise NotModelled(f"{i.name} that faults half-way") from None

    store(m, address, 2, limit, operand.stack)
    store(m, (address + 2) & MASK64, 8, base, operand.stack)

    return end


def sldt(m: Machine, i: Instruction, end: int) -> int:
    """Store the selector of LDTR, zero-extended into a register (SDM Vol. 2B, SLDT)."""
    forbid_in_user_mode(m)
    i.destination.write(m, m.ldtr.selector)
    return end


def str_(m: Machine, i: Instruction, end: int) -> int:
    """Store the selector of TR, zero-extended into a register (SDM Vol. 2B, STR)."""
    forbid_in_user_mode(m)
    i.destination.write(m, m.tr.selector)
    return end


def _system_descriptor(m: Machine, selector: int, name: str) -> tuple[int, int, int]:
    """(address, low, high) of a 16-byte descriptor in the GDT."""
    error = selector & 0xFFFC
    require(not selector & 4, Vector.GP, error, f"SDM Vol. 2A, {name}: the selector is not in the GDT")
    address = descriptor_address(m, selector, 16)
    require(address is not None, Vector.GP, error, f"SDM Vol. 2A, {name}: the selector is past the GDT limit")
    assert address is not None
    return address, load_implicit(m, address, 8), load_implicit(m, (address + 8) & MASK64, 8)


def _upper_type(high: int) -> int:
    """Bits 12:8 of the last doubleword of a 16-byte descriptor: where a type would stand if it were two descriptors; must be 0."""
    return high >> 40 & 0x1F


def system_segment(selector: int, low: int, high: int) -> Segment:
    """LDTR or TR from the 16 bytes of a system descriptor (SDM Vol. 3A, 3.5)."""
    descriptor = descriptor_of(low)
    return Segment(selector, descriptor.base | (high & 0xFFFF_FFFF) << 32, descriptor.limit, descriptor)


def lldt(m: Machine, i: Instruction, end: int) -> int:
    """Load LDTR; a null selector makes it invalid (SDM Vol. 2A, LLDT)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2A, LLDT: CPL is not 0")
    selector = i.destination.read(m) & 0xFFFF
    if is_null(selector):
        m.ldtr = Segment.null(selector)
        return end
    _, low, high = _system_descriptor(m, selector, "LLDT")
    descriptor = descriptor_of(low)
    error = selector & 0xFFFC
    is_ldt = not descriptor.is_segment and descriptor.type == SYSTEM_LDT
    require(is_ldt, Vector.GP, error, "SDM Vol. 2A, LLDT: the descriptor is not an LDT")
    if _upper_type(high):
        raise NotModelled("lldt of a descriptor whose upper half has a type")
    require(descriptor.present, Vector.NP, error, "SDM Vol. 2A, LLDT: the LDT is not present")

    m.ldtr = system_segment(selector, low, high)

    return end


def ltr(m: Machine, i: Instruction, end: int) -> int:
    """Load TR and mark the TSS busy (SDM Vol. 2A, LTR)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2A, LTR: CPL is not 0")
    selector = i.destination.read(m) & 0xFFFF
    require(not is_null(selector), Vector.GP, 0, "SDM Vol. 2A, LTR: the selector is null")
    address, low, high = _system_descriptor(m, selector, "LTR")
    descriptor = descriptor_of(low)
    error = selector & 0xFFFC
    available = not descriptor.is_segment and descriptor.type == SYSTEM_TSS_AVAILABLE
    require(available, Vector.GP, error, "SDM Vol. 2A, LTR: the descriptor is not an available TSS")
    require(not _upper_type(high), Vector.GP, error, "SDM Vol. 2A, LTR: the upper half of the descriptor has a type")
    require(descriptor.present, Vector.NP, error, "SDM Vol. 2A, LTR: the TSS is not present")

    store_implicit(m, address + 5, 1, low >> 40 & 0xFF | 2)
    m.tr = system_segment(selector, low | 2 << 40, high)

    return end


_LAR_TYPES: Final = (SYSTEM_LDT, SYSTEM_TSS_AVAILABLE, SYSTEM_TSS_BUSY, SYSTEM_CALL_GATE)
_LSL_TYPES: Final = (SYSTEM_LDT, SYSTEM_TSS_AVAILABLE, SYSTEM_TSS_BUSY)


def _visible(m: Machine, selector: int) -> Descriptor | None:
    """The descriptor of a selector, if it exists and CPL and RPL may see it (SDM Vol. 3A, 6.10)."""
    address = None if is_null(selector) else descriptor_address(m, selector)
    if address is None:
        return None
    descriptor = descriptor_of(load_implicit(m, address, 8))
    if descriptor.is_conforming:
        return descriptor
    return descriptor if m.cpl <= descriptor.dpl and selector & 3 <= descriptor.dpl else None


def _known(m: Machine, selector: int, system_types: tuple[int, ...]) -> Descriptor | None:
    """The descriptor that LAR or LSL answers for: visible, and a segment or one of `system_types`."""
    descriptor = _visible(m, selector)
    if descriptor is None or descriptor.is_segment:
        return descriptor
    if descriptor.type not in system_types:
        return None
    address = descriptor_address(m, selector, 16)
    if address is None or _upper_type(load_implicit(m, address + 8, 8)):
        raise NotModelled("a system descriptor without a proper upper half")
    return descriptor


def _set_zf(m: Machine, holds: bool) -> None:
    m.rflags = m.rflags | ZF if holds else m.rflags & ~ZF
    m.undefined &= ~ZF


def lar(m: Machine, i: Instruction, end: int) -> int:
    """Load access rights if the descriptor is visible and of a type LAR knows; ZF says so (SDM Vol. 2A, LAR, Table 3-52).

    Bits 19:16 of the result, where the limit has its upper bits, are undefined.
    """
    descriptor = _known(m, i.source.read(m) & 0xFFFF, _LAR_TYPES)
    if descriptor is not None:
        if i.bits > 16 and descriptor.raw >> 48 & 0xF:
            raise NotModelled("lar of a segment with a limit in bits 19:16")
        i.destination.write(m, descriptor.access_rights)
    _set_zf(m, descriptor is not None)
    return end


def lsl(m: Machine, i: Instruction, end: int) -> int:
    """Load the segment limit in bytes if the descriptor is visible and has one; ZF says so (SDM Vol. 2A, LSL, Table 3-53)."""
    descriptor = _known(m, i.source.read(m) & 0xFFFF, _LSL_TYPES)
    if descriptor is not None:
        i.destination.write(m, descriptor.limit)
    _set_zf(m, descriptor is not None)
    return end


def verr(m: Machine, i: Instruction, end: int) -> int:
    """ZF = the segment can be read from this CPL (SDM Vol. 2D, VERR/VERW)."""
    descriptor = _visible(m, i.destination.read(m) & 0xFFFF)
    _set_zf(m, descriptor is not None and descriptor.is_readable)
    return end


def verw(m: Machine, i: Instruction, end: int) -> int:
    """ZF = the segment can be written from this CPL (SDM Vol. 2D, VERR/VERW)."""
    descriptor = _visible(m, i.destination.read(m) & 0xFFFF)
    _set_zf(m, descriptor is not None and descriptor.is_writable_data)
    return end
