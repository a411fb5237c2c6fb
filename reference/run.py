"""Running a machine from its image to its end, one boundary at a time."""

from __future__ import annotations

from typing import Final

from iced_x86 import Mnemonic

from reference.bits import MASK64, RF, TF
from reference.boot import boot, observe
from reference.boundary import admit_arrivals, take_events
from reference.decode import Instruction
from reference.delivery import Ended, enter, from_fault
from reference.faults import Fault, NotModelled, Shutdown
from reference.fetch import fetch
from reference.image import End, Image, Observation
from reference.machine import Machine
from reference.paging import ERROR_WRITE

_SOFTWARE_INTERRUPTS: Final = frozenset({Mnemonic.INT, Mnemonic.INT3, Mnemonic.INT1})
_TRAP_OR_RESUME: Final = TF | RF
_KEEPS_RESUME: Final = frozenset({Mnemonic.IRET, Mnemonic.IRETD, Mnemonic.IRETQ})


def run(image: Image) -> Observation:
    """Run `image` to its end and report what can be seen then."""
    detail = ""
    try:
        m = boot(image)
    except (Fault, NotModelled) as reason:
        return Observation(End.NOT_MODELLED, detail=f"initial state: {reason}")
    try:
        end = _run_to_end(m, image.limit)
    except Ended:
        end = End.ENDED
    except Shutdown:
        end = End.SHUTDOWN
    except NotModelled as reason:
        end, detail = End.NOT_MODELLED, reason.what
    return observe(m, image, end, detail)


def _run_to_end(m: Machine, limit: int) -> End:
    # Deliveries are counted too: a handler whose own fetch faults is entered for ever, and nothing retires.
    while m.retired < limit and len(m.deliveries) < limit:
        if not step(m):
            return End.HALTED
        if not (m.pending or m.shadow or m.shadowed or m.sheltered or m.trap_pending or m.debug_hits or m.repeating or m.halted):
            _run_plainly(m, min(limit, m.next_arrival, m.retired + limit - len(m.deliveries)))
    return End.DID_NOT_END


def _run_plainly(m: Machine, last: int) -> None:
    """Do as `step` does up to boundary `last`, as long as nothing but the next instruction is due and that is a known and plain one.

    Most of a run is: here it does not pay for looking at every boundary for what can happen at some.
    """
    while m.retired < last:
        here = m.rip
        known = m.translations.fetches.get(here >> 12)
        instruction = known.get(here & 0xFFF) if known is not None else None
        if instruction is None or not instruction.plain or m.armed or m.rflags & _TRAP_OR_RESUME:
            return
        try:
            m.rip = instruction.execute(m, instruction, (here + instruction.length) & MASK64)
        except Fault as fault:
            _fault_of(m, instruction, fault)
            return
        m.retired += 1
        if m.shadow or m.debug_hits or m.halted:
            return


def step(m: Machine) -> bool:
    """Pass one boundary and retire or fault one instruction; False when the processor is halted and nothing will wake it."""
    if m.retired >= m.next_arrival:
        admit_arrivals(m)
    if (m.pending or m.shadow or m.shadowed or m.sheltered or m.trap_pending or m.debug_hits) and take_events(m):
        return True
    if m.halted:
        return False
    here = m.rip
    known = m.translations.fetches.get(here >> 12)
    instruction = known.get(here & 0xFFF) if known is not None else None
    if instruction is None or here in m.armed:
        try:
            instruction = fetch(m)
        except Fault as fault:
            m.fault_at_fetch = True
            _fault(m, fault)
            return True
    watched = m.rflags & _TRAP_OR_RESUME
    try:
        m.rip = instruction.execute(m, instruction, (here + instruction.length) & MASK64)
    except Fault as fault:
        _fault_of(m, instruction, fault)
        return True
    m.retired += 1
    if instruction.repeat or m.repeating:
        m.repeating = instruction.repeat and m.rip == here
    if watched or m.sheltered or instruction.traps_by_result:
        _settle(m, instruction, watched)
    return True


def _settle(m: Machine, instruction: Instruction, flags: int) -> None:
    """What follows an instruction that began with `flags` of TF and RF: the end of a shadow, RF cleared, a trap made pending."""
    if not m.repeating:
        m.sheltered = False
        if flags & RF and instruction.mnemonic not in _KEEPS_RESUME:
            m.rflags &= ~RF
    if flags & TF or instruction.traps_by_result:
        m.trap_pending = _traps(m, instruction)


def _fault_of(m: Machine, instruction: Instruction, fault: Fault) -> None:
    """Deliver the fault that `instruction` met while it ran."""
    _leave_model_where_open(instruction, fault)
    _fault(m, fault)


def _fault(m: Machine, fault: Fault) -> None:
    """Deliver the fault of the instruction at RIP."""
    if m.debug_hits:
        _drop_own_hits(m)
    if fault.cr2 is not None:
        m.cr2 = fault.cr2
    m.last_fault = fault
    enter(m, from_fault(fault, m.rip))


def _leave_model_where_open(instruction: Instruction, fault: Fault) -> None:
    """The manual does not say whether an operand that is read and then written faults as a read or as a write, if neither is allowed."""
    if instruction.rewrites_memory and fault.error_code is not None and fault.cr2 is not None and not fault.error_code & ERROR_WRITE:
        raise NotModelled("page fault of a read-modify-write")


def _traps(m: Machine, instruction: Instruction) -> bool:
    """Whether the single-step trap follows (SDM Vol. 3B, 18.3.1.4): TF as it was when the instruction began.

    Software interrupts clear TF on their way; SYSCALL and SYSRET are judged by the TF they leave, so that a kernel that
    masks TF is not trapped and a user instruction after SYSRET is not run first. The manual does not spell out the latter.
    """
    if instruction.mnemonic in _SOFTWARE_INTERRUPTS or m.blocking_shadow:
        return False
    return bool(m.rflags & TF) if instruction.traps_by_result else True


def _drop_own_hits(m: Machine) -> None:
    """A faulting instruction reports no data breakpoint of its own; hits held by a MOV SS before it are not modelled."""
    if m.shadowed:
        raise NotModelled("fault after MOV SS with a data breakpoint pending")
    m.debug_hits = 0
