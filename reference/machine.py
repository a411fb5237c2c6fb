"""The state of one logical processor and its physical memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference.bits import AC, FIXED, IF, MASK32
from reference.descriptors import Segment
from reference.image import GPRS, Delivery, Event, Image
from reference.profiles import Cr0, Profile

if TYPE_CHECKING:
    from reference.decode import Instruction
    from reference.faults import Fault

ES, CS, SS, DS, FS, GS = range(6)
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11 = range(12)

NEVER = 1 << 62
"""A boundary that no run reaches."""


class Translations:
    """Linear pages whose translation is known to succeed: by linear page number, `reads` leads to the physical page number,
    `writes` to the page's own copy.

    A cache as SDM Vol. 3A 5.10 allows one. It holds only what needs no further check, and is emptied by whatever could
    change an answer; page tables are not mapped in any target, so a store cannot. `fetches` leads straight to the decoded
    instructions of a page, by offset.
    """

    __slots__ = ("caching", "fetches", "implicit", "reads", "user", "writes")

    def __init__(self, user: bool, implicit: bool = False) -> None:
        self.user = user
        self.implicit = implicit
        """For accesses to system structures, which RFLAGS.AC does not exempt from SMAP."""
        self.caching = True
        self.reads: dict[int, int] = {}
        self.writes: dict[int, bytearray] = {}
        self.fetches: dict[int, dict[int, Instruction]] = {}

    def reset(self, caching: bool) -> None:
        """Drop every translation, and say whether new ones may be kept."""
        self.caching = caching
        self.reads.clear()
        self.writes.clear()
        self.fetches.clear()


class Machine:
    """Everything an instruction can see or change. Plain attributes; the rules are functions over it."""

    __slots__ = (
        "armed",
        "armed_oddly",
        "arrivals",
        "blocking_shadow",
        "code_frames",
        "copied",
        "cpl",
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "cr8",
        "cstar",
        "debug_hits",
        "deliveries",
        "dr",
        "dr6",
        "dr7",
        "efer",
        "end_vector",
        "fault_at_fetch",
        "gdtr_base",
        "gdtr_limit",
        "gpr",
        "halted",
        "idtr_base",
        "idtr_limit",
        "kernel_gs_base",
        "last_fault",
        "ldtr",
        "limit",
        "lstar",
        "machine_check_in_progress",
        "next_arrival",
        "nmi_blocked",
        "pages",
        "paging_structures",
        "pending",
        "profile",
        "repeating",
        "retired",
        "rflags",
        "rip",
        "segments",
        "sfmask",
        "shadow",
        "shadowed",
        "sheltered",
        "star",
        "supervisor",
        "sysenter_cs",
        "sysenter_eip",
        "sysenter_esp",
        "system",
        "tr",
        "translations",
        "trap_pending",
        "undefined",
        "undefined_dr6",
        "undefined_words",
        "user",
        "user32",
    )

    def __init__(self, image: Image) -> None:
        registers = image.registers
        self.profile: Profile = image.profile
        self.pages: dict[int, bytes | bytearray] = dict(image.pages)
        self.copied: list[int] = []
        """Physical pages that are no longer the image's."""
        self.gpr: list[int] = [registers[name] for name in GPRS]
        self.rip = registers["rip"]
        self.rflags = registers["rflags"] | FIXED
        self.segments: list[Segment] = []
        self.cpl = 0
        self.kernel_gs_base = registers["kernel_gs_base"]
        self.cr0 = registers["cr0"]
        self.cr2 = registers["cr2"]
        self.cr3 = registers["cr3"]
        self.cr4 = registers["cr4"]
        self.cr8 = registers["cr8"]
        self.efer = registers["efer"]
        self.dr: list[int] = [registers["dr0"], registers["dr1"], registers["dr2"], registers["dr3"]]
        self.dr6 = registers["dr6"]
        self.dr7 = registers["dr7"]
        self.star = registers["star"]
        self.lstar = registers["lstar"]
        self.cstar = registers["cstar"]
        self.sfmask = registers["sfmask"]
        self.sysenter_cs = registers["sysenter_cs"]
        self.sysenter_esp = registers["sysenter_esp"]
        self.sysenter_eip = registers["sysenter_eip"]
        self.gdtr_base = registers["gdtr_base"]
        self.gdtr_limit = registers["gdtr_limit"]
        self.idtr_base = registers["idtr_base"]
        self.idtr_limit = registers["idtr_limit"]
        self.ldtr = Segment.null(0)
        self.tr = Segment.null(0)

        self.shadow = False
        """An STI or MOV SS just retired: interrupts wait for one more instruction (SDM Vol. 3A, 7.8.3)."""
        self.blocking_shadow = False
        """The shadow is MOV SS's or POP SS's: debug traps and NMIs wait as well."""
        self.shadowed = False
        """The instruction about to run stands in a shadow of MOV SS or POP SS."""
        self.sheltered = False
        """The instruction now running began in a shadow of either kind."""
        self.nmi_blocked = False
        self.machine_check_in_progress = False
        """MCG_STATUS.MCIP, which nothing in the model can clear."""
        self.halted = False
        self.repeating = False
        """RIP stands between two iterations of a repeated string instruction."""
        self.trap_pending = False
        """TF was set when the instruction that just retired began."""
        self.debug_hits = 0
        """DR6 bits of data breakpoints that were hit and not yet reported."""
        self.arrivals: list[Event] = sorted(image.events, reverse=True)
        self.next_arrival = self.arrivals[-1].boundary if self.arrivals else NEVER
        self.pending: list[Event] = []
        self.retired = 0
        self.end_vector = image.end_vector
        self.limit = image.limit
        self.deliveries: list[Delivery] = []
        self.last_fault: Fault | None = None
        """The exception that an instruction met last, for traces."""
        self.fault_at_fetch = False

        self.undefined = 0
        """Flags whose present value the manual leaves undefined."""
        self.undefined_dr6 = 0
        """Bits of DR6 that a #DB may have set or not."""
        self.undefined_words: dict[int, int] = {}
        """Physical address of an RFLAGS image in memory to its undefined bits."""
        self.armed: frozenset[int] = frozenset()
        """Where the enabled instruction breakpoints are."""
        self.armed_oddly = False
        """One of them has a length that the manual gives no meaning."""
        self.code_frames: set[int] = set()
        """Physical pages that instructions were fetched from: a write to one empties `fetches`."""
        self.paging_structures: dict[int, tuple[int, int, int]] = {}
        """Where the upper levels of the page tables lead, by bits 47:21 of an address (SDM Vol. 3A, 5.10.3)."""
        self.user = Translations(user=True)
        self.user32 = Translations(user=True)
        """Those of compatibility mode; instructions are found in `fetches` by EIP, so CS must be flat."""
        self.supervisor = Translations(user=False)
        self.system = Translations(user=False, implicit=True)
        self.translations = self.supervisor

    @property
    def es(self) -> Segment:
        """The ES register."""
        return self.segments[ES]

    @property
    def cs(self) -> Segment:
        """The CS register."""
        return self.segments[CS]

    @property
    def ss(self) -> Segment:
        """The SS register."""
        return self.segments[SS]

    @property
    def ds(self) -> Segment:
        """The DS register."""
        return self.segments[DS]

    @property
    def fs(self) -> Segment:
        """The FS register."""
        return self.segments[FS]

    @property
    def gs(self) -> Segment:
        """The GS register."""
        return self.segments[GS]

    @property
    def compatibility(self) -> bool:
        """The next instruction is 32-bit code in compatibility mode (SDM Vol. 3A, 2.2), which is modelled at CPL 3 only."""
        return self.translations is self.user32

    @property
    def iopl(self) -> int:
        """The I/O privilege level in RFLAGS."""
        return self.rflags >> 12 & 3

    @property
    def interrupts_enabled(self) -> bool:
        """RFLAGS.IF."""
        return bool(self.rflags & IF)


def set_cpl(m: Machine, cpl: int) -> None:
    """Change the privilege level; with the mode that CS.L names it decides which translations apply. CS is loaded before."""
    m.cpl = cpl
    m.translations = m.supervisor if cpl != 3 else m.user if m.segments[CS].descriptor.long else m.user32


def code_address(m: Machine) -> int:
    """The linear address of the instruction at RIP: outside 64-bit mode CS has a base (SDM Vol. 3A, 3.4)."""
    return (m.cs.base + m.rip) & MASK32 if m.compatibility else m.rip


def set_rflags(m: Machine, value: int) -> None:
    """Write RFLAGS; RFLAGS.AC decides about SMAP and alignment checks, so a change of it empties the translations."""
    changed = m.rflags ^ value
    m.rflags = value
    if changed & AC:
        access_rules_changed(m)


def access_rules_changed(m: Machine) -> None:
    """Forget every translation: a control register, RFLAGS.AC or a debug register changed what an access has to check."""
    m.paging_structures.clear()
    dr7 = m.dr7
    enabled = [(n, dr7 >> 16 + 4 * n & 3, dr7 >> 18 + 4 * n & 3) for n in range(4) if dr7 >> 2 * n & 3] if dr7 & 0xFF else []
    watched = any(kind for _, kind, _ in enabled)
    m.armed = frozenset(m.dr[n] for n, kind, _ in enabled if not kind)
    m.armed_oddly = any(length for _, kind, length in enabled if not kind)
    unaligned = not (m.rflags & AC and m.cr0 & Cr0.AM)
    m.user.reset(caching=not watched and unaligned)
    m.user32.reset(caching=not watched and unaligned)
    m.supervisor.reset(caching=not watched)
    m.system.reset(caching=not watched)
