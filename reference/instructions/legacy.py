"""Instructions whose operation in compatibility mode is not that of 64-bit mode: the stack and branches, 32 bits wide."""

from __future__ import annotations

from reference.bits import MASK32, NT
from reference.compatibility import check_mode, far_target, linear_address, load_stack, store_stack
from reference.decode import Instruction
from reference.faults import Fault, NotModelled, Vector, require
from reference.instructions.far import SIZES, return_segment, returned_flags, target_segment
from reference.instructions.flags import condition
from reference.instructions.moves import open_stack_shadow
from reference.instructions.stack import PUSHED, remember_undefined_image, set_popped_flags, undefined_in_image
from reference.instructions.strings import carry_undefined, repeated
from reference.machine import RBP, RCX, RDI, RSI, RSP, SS, Machine, set_rflags
from reference.memory import check_store, load, refuse_undefined
from reference.operands import FarPointer, SegmentedMemory, SegmentRegister
from reference.segmentation import enter_code_segment, load_data_segment, load_stack_segment


def push_value(m: Machine, value: int, size: int) -> int:
    """Store `value` below ESP and move ESP there; the linear address. Nothing changes if the store faults."""
    esp = (m.gpr[RSP] - size) & MASK32
    linear = store_stack(m, esp, size, value)
    m.gpr[RSP] = esp
    return linear


def pop_value(m: Machine, size: int) -> int:
    """Load from ESP and move ESP up; nothing changes if the load faults."""
    value = _word(m, m.gpr[RSP], size)
    m.gpr[RSP] = (m.gpr[RSP] + size) & MASK32
    return value


def _word(m: Machine, offset: int, size: int) -> int:
    """A word of the stack, in which flags that mean nothing must not be."""
    linear = linear_address(m, SS, offset & MASK32, size, write=False)
    value = load(m, linear, size)
    if m.undefined_words:
        refuse_undefined(m, linear, size)
    return value


def push(m: Machine, i: Instruction, end: int) -> int:
    """Push a register, memory, an immediate or a selector (SDM Vol. 2B, PUSH)."""
    source = i.destination
    value = source.read(m)
    if isinstance(source, SegmentRegister) and i.slot == 4:
        _forbid_open_half(m)
    if isinstance(source, SegmentedMemory) and m.undefined_words:
        refuse_undefined(m, source.address(m), source.size)
    push_value(m, value, i.slot)
    return end


def _forbid_open_half(m: Machine) -> None:
    """A selector pushed with 32 bits is zero-extended, or leaves the upper half as it is (SDM Vol. 2B, PUSH): the same where that is 0."""
    linear = linear_address(m, SS, (m.gpr[RSP] - 4) & MASK32, 4, write=True)
    check_store(m, linear, 4)
    if load(m, linear + 2, 2):
        raise NotModelled("the upper half of a pushed selector")


def pop(m: Machine, i: Instruction, end: int) -> int:
    """Pop into a register, memory or a segment register; an address that uses ESP is computed after ESP moved (SDM Vol. 2B, POP)."""
    before = m.gpr[RSP]
    value = pop_value(m, i.slot)
    destination = i.destination
    try:
        if isinstance(destination, SegmentRegister):
            _pop_selector(m, destination.index, value & 0xFFFF)
        else:
            destination.write(m, value)
    except Fault:
        m.gpr[RSP] = before
        raise
    return end


def _pop_selector(m: Machine, index: int, selector: int) -> None:
    """Load a segment register; after SS interrupts and traps wait for one more instruction (SDM Vol. 2B, POP)."""
    if index == SS:
        load_stack_segment(m, selector)
        open_stack_shadow(m)
    else:
        load_data_segment(m, index, selector)


def pushf(m: Machine, i: Instruction, end: int) -> int:
    """Push EFLAGS with VM and RF clear (SDM Vol. 2B, PUSHF)."""
    remember_undefined_image(m, push_value(m, m.rflags & PUSHED, i.slot), i.slot)
    return end


def popf(m: Machine, i: Instruction, end: int) -> int:
    """Pop EFLAGS; what may change depends on CPL and IOPL, and RF becomes 0 (SDM Vol. 2B, POPF)."""
    linear = linear_address(m, SS, m.gpr[RSP], i.slot, write=False)
    value = load(m, linear, i.slot)

    m.gpr[RSP] = (m.gpr[RSP] + i.slot) & MASK32
    set_popped_flags(m, value, i.slot, undefined_in_image(m, linear))

    return end


def leave(m: Machine, i: Instruction, end: int) -> int:
    """ESP = EBP, then pop EBP, or BP with a 66 prefix (SDM Vol. 2A, LEAVE)."""
    size = 2 if i.name == "leavew" else 4
    frame = m.gpr[RBP]
    value = load_stack(m, frame, size)

    m.gpr[RSP] = (frame + size) & MASK32
    m.gpr[RBP] = value if size == 4 else frame & ~0xFFFF | value

    return end


def _within(m: Machine, target: int) -> int:
    require(
        target <= m.cs.limit,
        Vector.GP,
        0,
        "SDM Vol. 2A, CALL, JMP and Jcc, Vol. 2B, RET: the target of a near branch is past the limit of CS",
    )
    return target


def _relative_target(m: Machine, i: Instruction) -> int:
    """EIP plus the displacement, of which a 66 prefix leaves 16 bits."""
    return _within(m, (m.rip + i.target) & i.destination.ones)


def jmp(m: Machine, i: Instruction, end: int) -> int:
    """Jump relative (SDM Vol. 2A, JMP)."""
    return _relative_target(m, i)


def jmp_indirect(m: Machine, i: Instruction, end: int) -> int:
    """Jump to the address in a register or memory (SDM Vol. 2A, JMP)."""
    return _within(m, i.destination.read(m))


def jcc(m: Machine, i: Instruction, end: int) -> int:
    """Jump if the condition holds (SDM Vol. 2A, Jcc)."""
    return _relative_target(m, i) if condition(m, i.condition) else end


def jecxz(m: Machine, i: Instruction, end: int) -> int:
    """Jump if ECX, or CX with a 67 prefix, is 0 (SDM Vol. 2A, Jcc)."""
    return end if m.gpr[RCX] & (MASK32 if i.name == "jecxz" else 0xFFFF) else _relative_target(m, i)


def call(m: Machine, i: Instruction, end: int) -> int:
    """Push the return address and jump relative (SDM Vol. 2A, CALL)."""
    target = _relative_target(m, i)
    push_value(m, end, i.slot)
    return target


def call_indirect(m: Machine, i: Instruction, end: int) -> int:
    """Push the return address and jump to the address in a register or memory (SDM Vol. 2A, CALL)."""
    target = _within(m, i.destination.read(m))
    push_value(m, end, i.slot)
    return target


def ret(m: Machine, i: Instruction, end: int) -> int:
    """Pop EIP, and release `imm16` bytes more (SDM Vol. 2B, RET)."""
    size = 2 if i.name == "retw" else 4
    target = _within(m, _word(m, m.gpr[RSP], size))
    release = i.destination.read(m) if i.operands else 0

    m.gpr[RSP] = (m.gpr[RSP] + size + release) & MASK32

    return target


def retf(m: Machine, i: Instruction, end: int) -> int:
    """Far return; from CPL 3 there is no outer level (SDM Vol. 2B, RET, IA-32E-MODE-RETURN-TO-SAME-PRIVILEGE-LEVEL)."""
    size, esp = SIZES[i.name], m.gpr[RSP]
    release = i.destination.read(m) if i.operands else 0
    eip = _word(m, esp, size)
    selector = _word(m, esp + size, size) & 0xFFFF
    descriptor = return_segment(m, selector, "SDM Vol. 2B, RET")
    target = far_target(descriptor, eip, "SDM Vol. 2B, RET")

    enter_code_segment(m, selector, descriptor, m.cpl)
    m.gpr[RSP] = (esp + 2 * size + release) & MASK32
    m.rip = target
    check_mode(m)

    return target


def iret(m: Machine, i: Instruction, end: int) -> int:
    """Return from an interrupt; outside 64-bit mode SS and ESP are not popped at the same level (SDM Vol. 2A, IRET)."""
    m.nmi_blocked = False
    size, esp = SIZES[i.name], m.gpr[RSP]
    require(not m.rflags & NT, Vector.GP, 0, "SDM Vol. 2A, IRET: RFLAGS.NT is set in IA-32e mode")
    eip, selector = (_word(m, esp + size * n, size) for n in range(2))
    flags_at = linear_address(m, SS, (esp + 2 * size) & MASK32, size, write=False)
    image = load(m, flags_at, size)
    selector &= 0xFFFF
    descriptor = return_segment(m, selector, "SDM Vol. 2A, IRET")
    target = far_target(descriptor, eip, "SDM Vol. 2A, IRET")

    unknown = undefined_in_image(m, flags_at)
    flags = returned_flags(m, image, size)
    enter_code_segment(m, selector, descriptor, m.cpl)
    m.gpr[RSP] = (esp + 3 * size) & MASK32
    m.rip = target
    set_rflags(m, flags)
    m.undefined = unknown
    check_mode(m)

    return target


def jmp_far(m: Machine, i: Instruction, end: int) -> int:
    """Jump to a far pointer in the instruction or in memory (SDM Vol. 2A, JMP)."""
    pointer = i.destination
    if isinstance(pointer, FarPointer):
        selector, eip = pointer.selector, pointer.offset
    else:
        assert isinstance(pointer, SegmentedMemory)
        size = pointer.size - 2
        eip, selector = pointer.part(m, 0, size), pointer.part(m, size, 2)
    descriptor = target_segment(m, selector, "SDM Vol. 2A, JMP")
    target = far_target(descriptor, eip, "SDM Vol. 2A, JMP")

    enter_code_segment(m, selector, descriptor, m.cpl)
    m.rip = target
    check_mode(m)

    return target


def movs(m: Machine, i: Instruction, end: int) -> int:
    """Move from DS:[ESI], or another segment, to ES:[EDI] (SDM Vol. 2B, MOVS)."""
    return repeated(m, i, end, _move_one)


def _move_one(m: Machine, i: Instruction, step: int) -> None:
    source, destination = i.source, i.destination
    assert isinstance(source, SegmentedMemory)
    assert isinstance(destination, SegmentedMemory)
    destination.write(m, source.read(m))
    if m.undefined_words:
        carry_undefined(m, source.address(m), destination.address(m), source.size)
    m.gpr[RSI] = (m.gpr[RSI] + step) & MASK32
    m.gpr[RDI] = (m.gpr[RDI] + step) & MASK32
