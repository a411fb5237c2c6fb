"""Where everything lies in the machine of a case: one address space that all targets share.

Physical pages are numbered in the order of this table, page tables last. Every region is surrounded by addresses that are not mapped,
so an access that leaves its region faults. Linear addresses follow Linux's habit: user code low, kernel text in the top
2 GiB, kernel data in a direct map at 0xffff888000000000 (so a kernel GS base is negative, a user one is not).
"""

from __future__ import annotations

from dataclasses import dataclass

PAGE = 4096


@dataclass(frozen=True, slots=True)
class Region:
    """A run of pages mapped with one set of rights; `linear` is None where no linear address reaches it."""

    name: str
    linear: int | None
    pages: int
    user: bool = False
    writable: bool = True
    executable: bool = False

    @property
    def size(self) -> int:
        """Bytes in the region."""
        return self.pages * PAGE

    @property
    def start(self) -> int:
        """The first linear address; only for regions that have one."""
        assert self.linear is not None
        return self.linear

    @property
    def end(self) -> int:
        """The linear address just past the region: the initial RSP of a stack."""
        return self.start + self.size


_KERNEL = 0xFFFF_8880_0000_0000

USER_CODE = Region("user_code", 0x40_0000, 2, user=True, writable=False, executable=True)
USER_DATA = Region("user_data", 0x41_0000, 2, user=True)
USER_STACK = Region("user_stack", 0x42_0000, 2, user=True)
USER_READONLY = Region("user_readonly", 0x43_0000, 1, user=True, writable=False)
USER_EDGE = Region("user_edge", 0x7FFF_FFFF_F000, 1, user=True, executable=True)
KERNEL_TEXT = Region("kernel_text", 0xFFFF_FFFF_8100_0000, 4, writable=False, executable=True)
KERNEL_CODE = Region("kernel_code", 0xFFFF_FFFF_8110_0000, 1, writable=False, executable=True)
PERCPU = Region("percpu", _KERNEL + 0x1_0000, 1)
GDT = Region("gdt", _KERNEL + 0x2_0000, 1)
LDT = Region("ldt", _KERNEL + 0x2_2000, 1)
IDT = Region("idt", _KERNEL + 0x2_4000, 1)
LOG = Region("log", _KERNEL + 0x3_0000, 1)
CONTROL = Region("control", _KERNEL + 0x3_2000, 1)
KERNEL_DATA = Region("kernel_data", _KERNEL + 0x4_0000, 2)
THREAD_STACK = Region("thread_stack", _KERNEL + 0x5_0000, 2)
IRQ_STACK = Region("irq_stack", _KERNEL + 0x5_4000, 1)
DEBUG_STACKS = Region("debug_stacks", _KERNEL + 0x6_0000, 2)
NMI_STACK = Region("nmi_stack", _KERNEL + 0x6_4000, 1)
DOUBLE_FAULT_STACK = Region("double_fault_stack", _KERNEL + 0x6_8000, 1)
MACHINE_CHECK_STACK = Region("machine_check_stack", _KERNEL + 0x6_C000, 1)
END_STACK = Region("end_stack", _KERNEL + 0x7_0000, 1)
ENTRY_STACK = Region("entry_stack", _KERNEL + 0x7_4000, 1)
COMPAT_CODE = Region("compat_code", 0x44_0000, 2, user=True, writable=False, executable=True)

ENTRY_TEXT_PAGES = 2
"""Pages of KERNEL_TEXT, from its start, that user mode's own page tables map too: the entries, without the handlers."""
ENTRY_TEXT_LOW = Region("entry_text_low", KERNEL_TEXT.start & 0xFFFF_FFFF, ENTRY_TEXT_PAGES, writable=False, executable=True)
"""A copy of the entry text where an address of it that lost its upper half points."""

MAPPED = (
    USER_CODE,
    USER_DATA,
    USER_STACK,
    USER_READONLY,
    USER_EDGE,
    KERNEL_TEXT,
    KERNEL_CODE,
    PERCPU,
    GDT,
    LDT,
    IDT,
    LOG,
    CONTROL,
    KERNEL_DATA,
    THREAD_STACK,
    IRQ_STACK,
    DEBUG_STACKS,
    NMI_STACK,
    DOUBLE_FAULT_STACK,
    MACHINE_CHECK_STACK,
    END_STACK,
    ENTRY_STACK,
    COMPAT_CODE,
    ENTRY_TEXT_LOW,
)

USER_VIEW = {
    **{region: region.pages for region in MAPPED if region.user},
    KERNEL_TEXT: ENTRY_TEXT_PAGES,
    ENTRY_TEXT_LOW: ENTRY_TEXT_PAGES,
    KERNEL_CODE: KERNEL_CODE.pages,
    **{region: region.pages for region in (PERCPU, GDT, LDT, IDT, ENTRY_STACK)},
    **{region: region.pages for region in (DEBUG_STACKS, NMI_STACK, DOUBLE_FAULT_STACK, MACHINE_CHECK_STACK, END_STACK)},
}
"""What user mode's own page tables map, and how many pages of it: all that user mode uses, and what an entry needs before it has
switched to the kernel's. The per-CPU page is there for the TSS."""

# Inside the per-CPU page: GS base of the kernel is PERCPU.start.
TSS_OFFSET = 0x200
TSS_LIMIT = 0x67
TSS_BASE = PERCPU.start + TSS_OFFSET

# Selectors, in Linux's order (SYSCALL and SYSRET need KERNEL_DS and USER_DS, USER_CS where they are).
KERNEL32_CS = 0x08
KERNEL_CS = 0x10
KERNEL_DS = 0x18
USER32_CS = 0x23
USER_DS = 0x2B
USER_CS = 0x33
TSS_SELECTOR = 0x40
LDT_SELECTOR = 0x50
GDT_LIMIT = 0xFF
LDT_LIMIT = 0x3F
IDT_LIMIT = 0xFFF

# Interrupt stack table slots, as Linux 4.x numbers them, and one for the end of the run.
IST_DOUBLE_FAULT = 1
IST_NMI = 2
IST_DEBUG = 3
IST_MACHINE_CHECK = 4
IST_END = 5
IST_UNUSED = 7
"""Behind the slot of the end of the run, so that a TSS limit can cut off this one alone."""

END_VECTOR = 0xF1
"""The reserved software interrupt that ends a run: a gate of DPL 3 with a stack of its own."""
