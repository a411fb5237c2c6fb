"""Instructions that use the stack implicitly (SDM Vol. 2A and 2B)."""

from __future__ import annotations

from reference.bits import AC, ARITHMETIC, DF, ID, IF, IOPL, MASK64, NT, RF, TF, VM
from reference.decode import Instruction
from reference.faults import Fault, NotModelled
from reference.machine import RBP, RSP, Machine, set_rflags
from reference.memory import check_reachable, check_store, load, physical, refuse_undefined, store
from reference.operands import Memory, SegmentRegister
from reference.profiles import Cr0
from reference.segmentation import load_data_segment


def push_value(m: Machine, value: int, size: int) -> None:
    """Store `value` below RSP and move RSP there; nothing changes if the store faults."""
    address = (m.gpr[RSP] - size) & MASK64
    store(m, address, size, value & ((1 << 8 * size) - 1), stack=True)
    m.gpr[RSP] = address


def pop_value(m: Machine, size: int) -> int:
    """Load from RSP and move RSP up; nothing changes if the load faults."""
    value = load(m, m.gpr[RSP], size, stack=True)
    m.gpr[RSP] = (m.gpr[RSP] + size) & MASK64
    return value


def push(m: Machine, i: Instruction, end: int) -> int:
    """Push a register, memory, an immediate or FS/GS (SDM Vol. 2B, PUSH). A copied RFLAGS image is as undefined as the original."""
    source = i.destination
    copied = source.address(m) if isinstance(source, Memory) and m.undefined_words else None
    push_value(m, source.read(m), i.slot)
    if copied is not None and (mask := undefined_in_image(m, copied)):
        m.undefined_words[physical(m, m.gpr[RSP], m.cpl == 3)] = mask
    return end


def pop(m: Machine, i: Instruction, end: int) -> int:
    """Pop into a register, memory, FS or GS (SDM Vol. 2B, POP).

    An address that uses RSP is computed after RSP moved, and a pop into RSP keeps the value.
    """
    before = m.gpr[RSP]
    value = load(m, before, i.slot, stack=True)
    m.gpr[RSP] = (before + i.slot) & MASK64
    if m.undefined_words:
        refuse_undefined(m, before, i.slot)
    try:
        if isinstance(i.destination, SegmentRegister):
            load_data_segment(m, i.destination.index, value & 0xFFFF)
        else:
            i.destination.write(m, value)
    except Fault:
        m.gpr[RSP] = before
        raise
    return end


PUSHED: int = ~(VM | RF)


def pushf(m: Machine, i: Instruction, end: int) -> int:
    """Push RFLAGS with VM and RF clear (SDM Vol. 2B, PUSHF)."""
    push_value(m, m.rflags & PUSHED, i.slot)
    remember_undefined_image(m, m.gpr[RSP], i.slot)
    return end


def remember_undefined_image(m: Machine, address: int, size: int) -> None:
    """Note which bits of an RFLAGS image of `size` bytes just stored at `address` mean nothing."""
    if m.undefined:
        m.undefined_words[physical(m, address, m.cpl == 3)] = m.undefined & (1 << 8 * size) - 1


def undefined_in_image(m: Machine, address: int) -> int:
    """The bits that mean nothing in the RFLAGS image just loaded from `address`."""
    return m.undefined_words.get(physical(m, address, m.cpl == 3), 0) if m.undefined_words else 0


def popf(m: Machine, i: Instruction, end: int) -> int:
    """Pop RFLAGS; what may change depends on CPL and IOPL, and RF becomes 0 (SDM Vol. 2B, POPF)."""
    address = m.gpr[RSP]
    value = pop_value(m, i.slot)
    set_popped_flags(m, value, i.slot, undefined_in_image(m, address))
    return end


def set_popped_flags(m: Machine, value: int, size: int, undefined: int) -> None:
    """RFLAGS after a POPF of `size` bytes, of which the bits in `undefined` mean nothing (SDM Vol. 2B, POPF)."""
    changeable = ARITHMETIC | TF | DF | NT
    if size > 2:
        changeable |= AC | ID
    if m.cpl == 0:
        changeable |= IOPL
    if m.cpl <= m.iopl:
        changeable |= IF
    kept = m.rflags & ~changeable & ~RF
    m.undefined = undefined
    set_rflags(m, kept | value & changeable)


def _frame_slot(i: Instruction) -> int:
    """2 with a 66 prefix, 8 otherwise: there is no 32-bit form in 64-bit mode."""
    return 2 if i.name.endswith("w") else 8


def enter(m: Machine, i: Instruction, end: int) -> int:
    """Make a stack frame (SDM Vol. 2A, ENTER).

    A page that a write at the final RSP could not reach faults before anything changes, says the SDM; the APM does not.
    With a 66 prefix the operation writes all of RBP, and the text of the same page speaks of its low 16 bits: they agree where
    RBP was near RSP before, as that text demands of software.
    """
    size, level = i.operands[0].read(m), i.operands[1].read(m) % 32
    slot = _frame_slot(i)
    rsp, rbp = m.gpr[RSP], m.gpr[RBP]
    frame = (rsp - slot) & MASK64
    pushes = [(rsp - slot * n) & MASK64 for n in range(1, level + 2)]
    copied = [(rbp - slot * n) & MASK64 for n in range(1, level)]
    final = (pushes[-1] - size) & MASK64
    check_store(m, pushes[0], slot, stack=True)
    try:
        for number, address in enumerate(pushes[1:], 1):
            if number < level:
                load(m, copied[number - 1], slot, stack=True)
            check_store(m, address, slot, stack=True)
    except Fault:
        # What the pushes before the fault left in memory the manual does not say.
        raise NotModelled("enter that faults half-way") from None
    _check_final_stack(m, final, slot)
    if slot == 2 and rbp >> 16 != frame >> 16:
        raise NotModelled("16-bit enter with RBP far from RSP")

    mask = (1 << 8 * slot) - 1
    for number, address in enumerate(pushes):
        # A copied pointer may be one that has just been pushed.
        word = rbp if number == 0 else frame if number == level else load(m, copied[number - 1], slot, stack=True)
        store(m, address, slot, word & mask, stack=True)
    m.gpr[RBP] = frame
    m.gpr[RSP] = final

    return end


def _check_final_stack(m: Machine, final: int, slot: int) -> None:
    """A write at the final stack pointer must be possible (SDM Vol. 2A, ENTER), though none is made: so it cannot be misaligned.

    The APM speaks neither of that write nor of whether it has to be aligned.
    """
    if m.profile.vendor == "amd" and final & slot - 1 and m.cpl == 3 and m.rflags & AC and m.cr0 & Cr0.AM:
        raise NotModelled("enter to a misaligned stack with alignment checks")
    try:
        check_reachable(m, final, stack=True)
    except Fault:
        if m.profile.vendor == "amd":
            raise NotModelled("enter beyond the stack") from None
        raise


def leave(m: Machine, i: Instruction, end: int) -> int:
    """RSP = RBP, then pop RBP (SDM Vol. 2A, LEAVE)."""
    slot = _frame_slot(i)
    rbp = load(m, m.gpr[RBP], slot, stack=True)

    m.gpr[RSP] = (m.gpr[RBP] + slot) & MASK64
    m.gpr[RBP] = rbp if slot == 8 else m.gpr[RBP] & ~0xFFFF | rbp

    return end
