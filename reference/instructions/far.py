"""Far transfers from 64-bit mode: IRET, far RET, far JMP and far CALL (SDM Vol. 2A and 2B, their IA-32e-MODE operations)."""

from __future__ import annotations

from typing import Final

from reference.bits import AC, ARITHMETIC, DF, ID, IF, IOPL, MASK64, NT, RF, TF, VIF, VIP
from reference.compatibility import check_mode, far_target
from reference.decode import Instruction
from reference.descriptors import SYSTEM_CALL_GATE, Descriptor, Segment
from reference.faults import NotModelled, Vector, require
from reference.instructions.stack import undefined_in_image
from reference.machine import RSP, SS, Machine, set_rflags
from reference.memory import check_store, load, refuse_undefined, store
from reference.operands import Memory
from reference.segmentation import (
    DATA_SEGMENTS,
    drop_inaccessible_segments,
    enter_code_segment,
    is_null,
    read_descriptor,
    require_mode,
    stack_segment,
)

SIZES: Final = {"iret": 2, "iretd": 4, "iretq": 8, "retfw": 2, "retf": 4, "retfq": 8}
"""Bytes of each word of the frame, by operand size."""


def iret(m: Machine, i: Instruction, end: int) -> int:
    """Return from an interrupt (SDM Vol. 2A, IRET): in 64-bit mode SS and RSP are always popped.

    NMIs are unblocked even if the return faults (SDM Vol. 3A, 7.7.1).
    """
    m.nmi_blocked = False
    size = SIZES[i.name]
    require(not m.rflags & NT, Vector.GP, 0, "SDM Vol. 2A, IRET: RFLAGS.NT is set in IA-32e mode")
    rsp = m.gpr[RSP]
    rip, selector = (_word(m, rsp + size * n, size) for n in range(2))
    image = load(m, (rsp + 2 * size) & MASK64, size, stack=True)
    selector &= 0xFFFF
    descriptor = return_segment(m, selector, "SDM Vol. 2A, IRET")
    cpl = selector & 3
    new_rsp, new_ss = (_word(m, rsp + size * n, size) for n in (3, 4))
    stack = _return_stack(m, new_ss & 0xFFFF, cpl, descriptor, "SDM Vol. 2A, IRET")
    rip = far_target(descriptor, rip, "SDM Vol. 2A, IRET")

    unknown = undefined_in_image(m, (rsp + 2 * size) & MASK64)
    flags = returned_flags(m, image, size)
    outward = cpl > m.cpl
    enter_code_segment(m, selector, descriptor, cpl)
    m.segments[SS] = stack
    m.gpr[RSP] = new_rsp
    m.rip = rip
    set_rflags(m, flags)
    m.undefined = unknown
    if outward:
        drop_inaccessible_segments(m)
    check_mode(m)

    return rip


def _word(m: Machine, address: int, size: int) -> int:
    """A word of a return frame, other than the image of RFLAGS: flags that mean nothing must not be in it."""
    value = load(m, address & MASK64, size, stack=True)
    if m.undefined_words:
        refuse_undefined(m, address & MASK64, size)
    return value


def returned_flags(m: Machine, image: int, size: int) -> int:
    """RFLAGS after IRET: which bits come from the image depends on CPL, IOPL and operand size (SDM Vol. 2A, IRET)."""
    taken = ARITHMETIC | TF | DF | NT
    if size > 2:
        taken |= RF | AC | ID
    if m.cpl <= m.iopl:
        taken |= IF
    if m.cpl == 0:
        taken |= IOPL | (VIF | VIP if size > 2 else 0)
    return m.rflags & ~taken | image & taken


def return_segment(m: Machine, selector: int, source: str) -> Descriptor:
    """The code segment of a far return, checked in the manual's order (SDM Vol. 2B, RET, IA-32e-MODE)."""
    error = selector & 0xFFFC
    require(not is_null(selector), Vector.GP, 0, f"{source}: the return code selector is null")
    descriptor = read_descriptor(m, selector)
    rpl = selector & 3
    require(descriptor.is_code, Vector.GP, error, f"{source}: the return selector names no code segment")
    require_mode(descriptor, error)
    require(rpl >= m.cpl, Vector.GP, error, f"{source}: the RPL of the return code selector is below the CPL")
    if descriptor.is_conforming:
        require(descriptor.dpl <= rpl, Vector.GP, error, f"{source}: a conforming return segment's DPL is above its RPL")
    else:
        require(descriptor.dpl == rpl, Vector.GP, error, f"{source}: a nonconforming return segment's DPL is not its RPL")
    require(descriptor.present, Vector.NP, error, f"{source}: the return code segment is not present")
    return descriptor


def _return_stack(m: Machine, selector: int, cpl: int, code: Descriptor, source: str) -> Segment:
    """The stack segment of a far return to `cpl`; null only in 64-bit mode below CPL 3 and with RPL = CPL."""
    if is_null(selector):
        require(code.long, Vector.GP, 0, f"{source}: the return stack selector is null and the new mode is compatibility mode")
        require(cpl != 3, Vector.GP, 0, f"{source}: the return stack selector is null at CPL 3")
        require(selector & 3 == cpl, Vector.GP, 0, f"{source}: a null return stack selector's RPL is not the CPL")
    return stack_segment(m, selector, cpl)


def retf(m: Machine, i: Instruction, end: int) -> int:
    """Far return; to an outer level it also pops RSP and SS (SDM Vol. 2B, RET, IA-32e-MODE-PROTECTED-MODE-RETURN)."""
    size = SIZES[i.name]
    release = i.destination.read(m) if i.operands else 0
    rsp = m.gpr[RSP]
    rip = _word(m, rsp, size)
    selector = _word(m, rsp + size, size) & 0xFFFF
    descriptor = return_segment(m, selector, "SDM Vol. 2B, RET")
    cpl = selector & 3
    outer = cpl > m.cpl
    top = (rsp + 2 * size + release) & MASK64
    if outer:
        new_rsp = _word(m, top, size)
        new_ss = _word(m, top + size, size) & 0xFFFF
        stack = _return_stack(m, new_ss, cpl, descriptor, "SDM Vol. 2B, RET")
        top = (new_rsp + release) & MASK64
    rip = far_target(descriptor, rip, "SDM Vol. 2B, RET")

    enter_code_segment(m, selector, descriptor, cpl)
    if outer:
        m.segments[SS] = stack
    m.gpr[RSP] = top
    m.rip = rip
    if outer:
        _forbid_null_with_rpl(m)
        drop_inaccessible_segments(m)
    check_mode(m)

    return rip


def _forbid_null_with_rpl(m: Machine) -> None:
    """A null selector with an RPL: IRET to an outer level makes it 0, says the SDM; of far RET it does not say so."""
    if any(is_null(m.segments[index].selector) and m.segments[index].selector for index in DATA_SEGMENTS):
        raise NotModelled("null selector with an RPL after a far return to an outer level")


def _far_target(m: Machine, i: Instruction, source: str) -> tuple[int, int, Descriptor]:
    """(selector, RIP, descriptor) of a far JMP or CALL through memory (SDM Vol. 2A, JMP and CALL, far).

    AMD has no 64-bit form: REX.W does not change the operand (APM Vol. 3, JMP and CALL, far), only what CALL pushes.
    """
    assert isinstance(i.destination, Memory)
    address = i.destination.address(m)
    size = i.destination.size - 2
    rip = load(m, address, size, i.destination.stack)
    selector = load(m, (address + size) & MASK64, 2, i.destination.stack)
    if m.undefined_words:
        refuse_undefined(m, address, size + 2)
    return selector, rip, target_segment(m, selector, source)


def target_segment(m: Machine, selector: int, source: str) -> Descriptor:
    """The code segment that a far JMP or CALL names, checked in the manual's order (SDM Vol. 2A, JMP and CALL, far)."""
    error = selector & 0xFFFC
    require(not is_null(selector), Vector.GP, 0, f"{source}: the target selector is null")
    descriptor = read_descriptor(m, selector)
    if not descriptor.is_segment and descriptor.type == SYSTEM_CALL_GATE:
        raise NotModelled("call gate")
    require(descriptor.is_code, Vector.GP, error, f"{source}: the target selector names neither a code segment nor a call gate")
    require_mode(descriptor, error)
    if descriptor.is_conforming:
        require(descriptor.dpl <= m.cpl, Vector.GP, error, f"{source}: a conforming target's DPL is above the CPL")
    else:
        matches = selector & 3 <= m.cpl and descriptor.dpl == m.cpl
        require(matches, Vector.GP, error, f"{source}: a nonconforming target's RPL is above the CPL or its DPL is not the CPL")
    require(descriptor.present, Vector.NP, error, f"{source}: the target segment is not present")
    return descriptor


def jmp_far(m: Machine, i: Instruction, end: int) -> int:
    """Jump through a far pointer in memory (SDM Vol. 2A, JMP)."""
    selector, rip, descriptor = _far_target(m, i, "SDM Vol. 2A, JMP")
    rip = far_target(descriptor, rip, "SDM Vol. 2A, JMP")

    enter_code_segment(m, selector, descriptor, m.cpl)
    m.rip = rip
    check_mode(m)

    return rip


def call_far(m: Machine, i: Instruction, end: int) -> int:
    """Push CS and RIP and jump through a far pointer in memory (SDM Vol. 2A, CALL).

    The SDM compares the offset with the limit and then pushes; the APM pushes first, and what is pushed stays below RSP when
    the comparison fails: PUSH old CS, PUSH next RIP, then #GP(0) if RIP is past the limit (APM Vol. 3, CALL (Far)).
    """
    selector, rip, descriptor = _far_target(m, i, "SDM Vol. 2A, CALL")
    size, rsp = i.slot // 2, m.gpr[RSP]
    for n in (1, 2):
        check_store(m, (rsp - n * size) & MASK64, size, stack=True)
    pushes_first = m.profile.vendor == "amd"
    if not pushes_first:
        rip = far_target(descriptor, rip, "SDM Vol. 2A, CALL")
    store(m, (rsp - size) & MASK64, size, m.cs.selector, stack=True)
    store(m, (rsp - 2 * size) & MASK64, size, end & (1 << 8 * size) - 1, stack=True)
    if pushes_first:
        rip = far_target(descriptor, rip, "APM Vol. 3, CALL (Far)")

    m.gpr[RSP] = (rsp - 2 * size) & MASK64
    enter_code_segment(m, selector, descriptor, m.cpl)
    m.rip = rip
    check_mode(m)

    return rip
