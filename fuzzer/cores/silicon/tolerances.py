"""What Linux shows otherwise than the processor did, by name: where it may differ, and why that proves nothing."""

from __future__ import annotations

from typing import Final

from fuzzer.tolerances import Tolerance

LAST_USER: Final = 0x7FFF_FFFF_F000
"""From here up no address is the user's under Linux (TASK_SIZE_MAX with 4-level page tables)."""

NULL_SELECTORS: Final = Tolerance(
    id="silicon-null-selectors",
    why="the kernel's own return to user mode, on the way to the signal handler, makes every null selector 0",
    source="SDM Vol. 2A, IRET, RETURN-TO-OUTER-PRIVILEGE-LEVEL: SegmentSelector := 0",
    covers="1, 2 or 3 in ES, DS, FS or GS where the processor shows 0",
)
KERNEL_PRESENT: Final = Tolerance(
    id="silicon-kernel-present",
    why="Linux reports every page fault beyond user addresses as one on a present page, so that user mode cannot probe its mappings",
    source="Linux, arch/x86/mm/fault.c, __bad_area_nosemaphore: error_code |= X86_PF_PROT",
    covers="bit 0 of the error code of #PF for CR2 from 0x7ffffffff000 up",
)
FAULT_ORDER: Final = Tolerance(
    id="silicon-fault-order",
    why="one instruction meets several faults, and the manual does not say which comes first; this one is among them",
    source="SDM Vol. 3A, 7.9: exceptions within each class are implementation-dependent and may vary from processor to processor",
    covers="another fault of the same far return or SYSEXIT, each proved by the specification's own checks",
)
EFFECTIVE_ADDRESS: Final = Tolerance(
    id="silicon-effective-address",
    why="the processor refuses an operand in FS or GS whose effective address is not canonical, though base and offset make a "
    "canonical linear address, which is all that the manuals ask for: a deviation of its own",
    source="SDM Vol. 1, 3.3.7.1 and APM Vol. 2, 5.3.1: canonical form is asked of linear (virtual) addresses",
    covers="#GP(0) or #SS(0) for such an operand where the specification has another fault of the same instruction",
)
REINJECTED_DEBUG: Final = Tolerance(
    id="silicon-hypervisor",
    why="a hypervisor that intercepts #DB and CPUID injects and completes them from what it has: RIP at the INT1 itself, RF not set "
    "within a repeated string, RF not cleared by CPUID",
    source="APM Vol. 2, 15.12 (exception intercepts) and 15.20 (event injection); only where CPUID names a hypervisor",
    covers="RIP of the #DB of INT1; RF of a single-step trap between two iterations, or behind CPUID",
)
LOCKED_VERW: Final = Tolerance(
    id="silicon-lock-verw",
    why="the processor takes LOCK before VERW of memory, for which the manual demands #UD: a deviation of its own",
    source="APM Vol. 3, 1.2.5, LOCK prefix: any other instruction is an invalid opcode",
    covers="#UD expected for the bytes F0 (REX) 0F 00 /5 with a memory operand; what follows is not compared",
)
TOLERANCES: Final = {
    tolerance.id: tolerance for tolerance in (NULL_SELECTORS, KERNEL_PRESENT, FAULT_ORDER, EFFECTIVE_ADDRESS, REINJECTED_DEBUG, LOCKED_VERW)
}
