"""Reading descriptors and loading segment registers (SDM Vol. 3A, chapters 3 and 5)."""

from __future__ import annotations

from typing import Final

from reference.bits import MASK64, canonical
from reference.compatibility import check_stack_width
from reference.descriptors import TYPE_ACCESSED, Descriptor, Segment, descriptor_of
from reference.faults import Fault, NotModelled, Vector, require
from reference.machine import CS, DS, ES, FS, GS, SS, Machine, set_cpl
from reference.memory import load_implicit, store_implicit

DATA_SEGMENTS: Final = (ES, DS, FS, GS)


def is_null(selector: int) -> bool:
    """Index 0 of the GDT, whatever the RPL (SDM Vol. 3A, 3.4.2)."""
    return selector & 0xFFFC == 0


def descriptor_address(m: Machine, selector: int, size: int = 8) -> int | None:
    """Where the descriptor of `selector` stands, or None past the limit of its table."""
    offset = selector & 0xFFF8
    if selector & 4:
        if not m.ldtr.usable or offset + size - 1 > m.ldtr.limit:
            return None
        return (m.ldtr.base + offset) & MASK64
    return (m.gdtr_base + offset) & MASK64 if offset + size - 1 <= m.gdtr_limit else None


def read_descriptor(m: Machine, selector: int, vector: int = Vector.GP, external: int = 0) -> Descriptor:
    """The descriptor of a selector that is not null; one that cannot be reached is a fault with the selector as its error code."""
    address = descriptor_address(m, selector)
    if address is None:
        raise Fault(vector, selector & 0xFFFC | external, "the selector is past the limit of its descriptor table")
    if not (canonical(address) and canonical(address + 7)):
        raise Fault(vector, selector & 0xFFFC | external, "the descriptor stands at a non-canonical address")
    return descriptor_of(load_implicit(m, address, 8))


def mark_accessed(m: Machine, selector: int, descriptor: Descriptor) -> Descriptor:
    """Set the accessed flag in memory, as loading a segment register does (SDM Vol. 3A, 3.4.5.1)."""
    if descriptor.type & TYPE_ACCESSED:
        return descriptor
    address = descriptor_address(m, selector)
    assert address is not None
    marked = descriptor_of(descriptor.raw | TYPE_ACCESSED << 40)
    store_implicit(m, address + 5, 1, marked.raw >> 40 & 0xFF)
    return marked


def load_data_segment(m: Machine, index: int, selector: int) -> None:
    """Load DS, ES, FS or GS (SDM Vol. 2B, MOV; the same rules for POP and LFS/LGS)."""
    if is_null(selector):
        if index in (FS, GS) and m.segments[index].base and not m.profile.null_load_clears_base:
            # APM Vol. 2: "not altered" by 4.5.3, undefined without NullSelectorClearsBase by 4.5.1.
            raise NotModelled("the base of FS or GS after a null selector on AMD")
        m.segments[index] = Segment.null(selector)
        return
    descriptor = read_descriptor(m, selector)
    error = selector & 0xFFFC
    require(descriptor.is_readable, Vector.GP, error, "the segment is neither data nor readable code")
    if not descriptor.is_conforming:
        rpl = selector & 3
        require(
            rpl <= descriptor.dpl and m.cpl <= descriptor.dpl,
            Vector.GP,
            error,
            "RPL or CPL is greater than the DPL of data or nonconforming code",
        )
    require(descriptor.present, Vector.NP, error, "the segment is marked not present")

    m.segments[index] = Segment.from_descriptor(selector, mark_accessed(m, selector, descriptor))


def load_stack_segment(m: Machine, selector: int) -> None:
    """Load SS by MOV or LSS (SDM Vol. 2B, MOV): null only in 64-bit mode below CPL 3 with RPL = CPL."""
    rule = "SDM Vol. 2B, MOV: SS is loaded with a null selector at CPL 3, or with an RPL that is not the CPL"
    require(not is_null(selector) or (m.cpl != 3 and selector & 3 == m.cpl), Vector.GP, 0, rule)
    stack = stack_segment(m, selector, m.cpl)
    if m.compatibility:
        check_stack_width(stack)
    m.segments[SS] = stack


def stack_segment(m: Machine, selector: int, cpl: int) -> Segment:
    """The SS that `selector` names for privilege level `cpl`; a null selector must have passed its own rule before."""
    if is_null(selector):
        return Segment.null(selector)
    descriptor = read_descriptor(m, selector)
    error = selector & 0xFFFC
    require(selector & 3 == cpl, Vector.GP, error, "the RPL of SS is not the CPL")
    require(descriptor.is_writable_data, Vector.GP, error, "SS is not a writable data segment")
    require(descriptor.dpl == cpl, Vector.GP, error, "the DPL of SS is not the CPL")
    require(descriptor.present, Vector.SS, error, "the stack segment is marked not present")
    return Segment.from_descriptor(selector, mark_accessed(m, selector, descriptor))


def enter_code_segment(m: Machine, selector: int, descriptor: Descriptor, cpl: int) -> None:
    """Load CS with a descriptor that has been checked, RPL set to the new CPL."""
    selector = selector & 0xFFFC | cpl
    try:
        marked = mark_accessed(m, selector, descriptor)
    except Fault:
        raise NotModelled("the accessed flag of a code segment cannot be written") from None
    m.segments[CS] = Segment.from_descriptor(selector, marked)
    set_cpl(m, cpl)


def require_mode(descriptor: Descriptor, error: int) -> None:
    """A code segment with both L and D set is no valid one (SDM Vol. 3A, 6.2.1)."""
    require(not (descriptor.long and descriptor.default_big), Vector.GP, error, "the code segment has both L and D set")


def drop_inaccessible_segments(m: Machine) -> None:
    """On a return to an outer level, make null what that level may not use (SDM Vol. 2A, IRET and Vol. 2B, RET)."""
    for index in DATA_SEGMENTS:
        segment = m.segments[index]
        descriptor = segment.descriptor
        inaccessible = segment.usable and not descriptor.is_conforming and descriptor.dpl < m.cpl
        if segment.usable and not inaccessible:
            continue
        if inaccessible and index in (FS, GS):
            raise NotModelled("the base of FS or GS after a return made it null")
        if not segment.usable and segment.selector and m.profile.vendor == "amd":
            raise NotModelled("null selector with an RPL after a return to an outer level on AMD")
        if segment.usable or segment.selector:
            m.segments[index] = Segment.null(0, segment.base)
