"""Which other faults an instruction could have raised first: the manual leaves the order of some open.

"While priority among these classes is consistent throughout the architecture, exceptions within each class are
implementation-dependent and may vary from processor to processor" (SDM Vol. 3A, 7.9): a far return reads several words and
checks several selectors, and when two of these fail, either fault is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from reference.bits import AC, MASK64, canonical
from reference.boot import boot
from reference.decode import Instruction
from reference.faults import Fault, NotModelled, Vector
from reference.fetch import fetch
from reference.image import Image
from reference.instructions.far import SIZES, return_segment
from reference.machine import RSP, Machine
from reference.memory import load
from reference.profiles import Cr0
from reference.run import step
from reference.segmentation import read_descriptor, stack_segment

Kept = tuple[int, int | None, int | None]
"""Vector, error code, CR2."""


def possible_faults(image: Image, retired: int) -> frozenset[Kept]:
    """Every fault that the instruction at boundary `retired` of the specification's run meets; empty where order is no question."""
    m = boot(image)
    while m.retired < retired:
        step(m)
    try:
        instruction = fetch(m, m.rip)
    except Fault:
        return frozenset()
    checks = _CHECKS.get(instruction.name)
    return frozenset(_met(checks(m, instruction))) if checks else frozenset()


def _met(checks: Iterator[Callable[[], object]]) -> Iterator[Kept]:
    """The faults among some checks, each made as if the others had passed."""
    for check in checks:
        try:
            check()
        except Fault as fault:
            yield fault.vector, fault.error_code, fault.cr2
        except NotModelled:
            pass


def _interrupt_return(m: Machine, i: Instruction) -> Iterator[Callable[[], object]]:
    """IRET: five words, the code segment, the stack segment, the new RIP."""
    return _frame(m, [m.gpr[RSP] + SIZES[i.name] * n for n in range(5)], SIZES[i.name], stack_at=4)


def _far_return(m: Machine, i: Instruction) -> Iterator[Callable[[], object]]:
    """Far RET: two words, and two more for an outer level, which the RPL of the new CS makes it (APM Vol. 3, RET far)."""
    size, release = SIZES[i.name], i.destination.read(m) if i.operands else 0
    top = m.gpr[RSP] + 2 * size + release
    return _frame(m, [m.gpr[RSP], m.gpr[RSP] + size, top, top + size], size, stack_at=3)


def _frame(m: Machine, places: list[int], size: int, stack_at: int) -> Iterator[Callable[[], object]]:
    def word(n: int) -> int:
        return load(m, places[n] & MASK64, size, stack=True)

    def aligned(n: int) -> None:
        if places[n] & size - 1 and m.rflags & AC and m.cr0 & Cr0.AM:
            raise Fault(Vector.AC, 0, "SDM Vol. 3A, 7.15: a misaligned access")

    def target() -> None:
        code = read_descriptor(m, word(1) & 0xFFFF)
        if not canonical(word(0)) if code.long else word(0) > code.limit:
            raise Fault(Vector.GP, 0, "the new RIP is not canonical, or past the limit of the code segment")

    for n in range(len(places)):
        yield partial(word, n)
        yield partial(aligned, n)
    yield lambda: return_segment(m, word(1) & 0xFFFF, "")
    yield lambda: stack_segment(m, word(stack_at) & 0xFFFF, word(1) & 3)
    yield target


def _system_exit(m: Machine, i: Instruction) -> Iterator[Callable[[], object]]:
    """SYSEXIT: invalid in long mode (#UD), and at another CPL than 0 (#GP); the APM gives no order (APM Vol. 3, SYSEXIT)."""

    def privilege() -> None:
        if m.cpl:
            raise Fault(Vector.GP, 0, "APM Vol. 3, SYSEXIT: CPL is not 0")

    yield privilege


_CHECKS: dict[str, Callable[[Machine, Instruction], Iterator[Callable[[], object]]]] = {
    **dict.fromkeys(("iret", "iretd", "iretq"), _interrupt_return),
    **dict.fromkeys(("retfw", "retf", "retfq"), _far_return),
    **dict.fromkeys(("sysexit", "sysexitq"), _system_exit),
}
