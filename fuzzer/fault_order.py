"""Which other faults an instruction may raise in place of the one that the specification names.

"While priority among these classes is consistent throughout the architecture, exceptions within each class are
implementation-dependent and may vary from processor to processor" (SDM Vol. 3A, 7.9): a far return reads several words and
checks several selectors, and when two of these fail, either fault is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fuzzer.cores.silicon.tolerances import EFFECTIVE_ADDRESS, FAULT_ORDER
from fuzzer.tolerances import Tolerance
from reference.bits import AC, MASK64, canonical
from reference.boot import boot
from reference.compatibility import load_stack
from reference.decode import Instruction
from reference.faults import Fault, NotModelled, Vector
from reference.fetch import fetch
from reference.image import Image
from reference.instructions.branches import call_indirect
from reference.instructions.far import SIZES, call_far, jmp_far, return_segment, target_segment
from reference.machine import FS, RSP, Machine
from reference.memory import check_store, load
from reference.operands import Memory
from reference.profiles import Cr0
from reference.run import step
from reference.segmentation import read_descriptor, stack_segment

Kept = tuple[int, int | None, int | None]
"""Vector, error code, CR2."""
Checks = Iterator[Callable[[], object]]


def possible_faults(image: Image, retired: int) -> dict[Kept, Tolerance]:
    """The other faults that the instruction at boundary `retired` of the specification's run meets, and what lets them pass."""
    m = boot(image)
    while m.retired < retired:
        step(m)
    try:
        instruction = fetch(m)
    except Fault:
        return {}
    met = dict.fromkeys(_met(_effective_addresses(m, instruction)), EFFECTIVE_ADDRESS)
    for names, checks in _CHECKS:
        if instruction.name in names and (not m.compatibility or checks in _IN_COMPATIBILITY_MODE):
            met |= dict.fromkeys(_met(checks(m, instruction)), FAULT_ORDER)
    return met


def _met(checks: Checks) -> Iterator[Kept]:
    """The faults among some checks, each made as if the others had passed."""
    for check in checks:
        try:
            check()
        except Fault as fault:
            yield fault.vector, fault.error_code, fault.cr2
        except NotModelled:
            pass


def _effective_addresses(m: Machine, i: Instruction) -> Checks:
    """A canonical linear address of FS or GS whose effective address, before the base is added, is not canonical."""

    def effective(operand: Memory) -> None:
        if canonical(operand.address(m)) and not canonical(operand.offset(m)):
            raise Fault(Vector.SS if operand.stack else Vector.GP, 0, "the effective address is not canonical")

    if not m.compatibility:
        yield from (partial(effective, each) for each in i.operands if isinstance(each, Memory) and each.segment >= FS)


def _interrupt_return(m: Machine, i: Instruction) -> Checks:
    """IRET: five words, the code segment, the stack segment, the new RIP; at CPL 3 compatibility mode pops three (SDM Vol. 2A, IRET)."""
    return _frame(m, [m.gpr[RSP] + SIZES[i.name] * n for n in range(3 if m.compatibility else 5)], SIZES[i.name], stack_at=4)


def _far_return(m: Machine, i: Instruction) -> Checks:
    """Far RET: two words, and two more for an outer level, which the RPL of the new CS makes it (APM Vol. 3, RET far)."""
    size, release = SIZES[i.name], i.destination.read(m) if i.operands else 0
    top = m.gpr[RSP] + 2 * size + release
    return _frame(m, [m.gpr[RSP], m.gpr[RSP] + size, top, top + size], size, stack_at=3)


def _frame(m: Machine, places: list[int], size: int, stack_at: int) -> Checks:
    def word(n: int) -> int:
        return load_stack(m, places[n], size) if m.compatibility else load(m, places[n] & MASK64, size, stack=True)

    for n, place in enumerate(places):
        yield partial(word, n)
        yield partial(_alignment, m, place, size)
    yield lambda: return_segment(m, word(1) & 0xFFFF, "")
    if stack_at < len(places):
        yield lambda: stack_segment(m, word(stack_at) & 0xFFFF, word(1) & 3)
    yield lambda: _target(m, word(0), word(1) & 0xFFFF)


def _alignment(m: Machine, place: int, size: int) -> None:
    """#AC, whatever becomes of the page: which comes first is open."""
    if place & size - 1 and m.rflags & AC and m.cr0 & Cr0.AM:
        raise Fault(Vector.AC, 0, "SDM Vol. 3A, 7.15: a misaligned access")


def _target(m: Machine, rip: int, selector: int) -> None:
    code = read_descriptor(m, selector)
    if not canonical(rip) if code.long else rip > code.limit:
        raise Fault(Vector.GP, 0, "the new RIP is not canonical, or past the limit of the code segment")


def _call(m: Machine, i: Instruction) -> Checks:
    """CALL and JMP through a register or memory: the operand, what is pushed, the target."""
    if i.execute is call_indirect:
        yield partial(_pushes, m, [m.gpr[RSP] - i.slot], i.slot)
        yield lambda: _near_target(i.destination.read(m))
    elif i.execute in (call_far, jmp_far) and isinstance(i.destination, Memory):
        size, place = i.destination.size - 2, i.destination.address(m)
        for part, length in ((0, size), (size, 2)):
            yield partial(load, m, (place + part) & MASK64, length, i.destination.stack)
            yield partial(_alignment, m, place + part, length)
        yield lambda: target_segment(m, load(m, (place + size) & MASK64, 2), "")
        yield lambda: _target(m, load(m, place, size), load(m, (place + size) & MASK64, 2))
        if i.execute is call_far:
            yield from (partial(_pushes, m, [m.gpr[RSP] - n * i.slot // 2], i.slot // 2) for n in (1, 2))


def _near_target(target: int) -> None:
    if not canonical(target):
        raise Fault(Vector.GP, 0, "the target of a near branch is not canonical")


def _pushes(m: Machine, places: list[int], size: int) -> None:
    for place in places:
        check_store(m, place & MASK64, size, stack=True)


def _system_exit(m: Machine, i: Instruction) -> Checks:
    """SYSEXIT: invalid in long mode (#UD), and at another CPL than 0 (#GP); the APM gives no order (APM Vol. 3, SYSEXIT)."""

    def privilege() -> None:
        if m.cpl:
            raise Fault(Vector.GP, 0, "APM Vol. 3, SYSEXIT: CPL is not 0")

    yield privilege


_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Machine, Instruction], Checks]], ...] = (
    (("iret", "iretd", "iretq"), _interrupt_return),
    (("retfw", "retf", "retfq"), _far_return),
    (("call", "jmp"), _call),
    (("sysexit", "sysexitq"), _system_exit),
)
"""By the names of instructions: what each of them checks."""
_IN_COMPATIBILITY_MODE = (_interrupt_return,)
