"""What goes into a run and what comes out of it: the types that the specification and every core share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final

from reference.profiles import Profile

PAGE: Final = 4096

GPRS: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs")
REGISTERS: Final = (
    *GPRS,
    "rip",
    "rflags",
    *SEGMENTS,
    "ldtr",
    "tr",
    "fs_base",
    "gs_base",
    "kernel_gs_base",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "cr8",
    "efer",
    "dr0",
    "dr1",
    "dr2",
    "dr3",
    "dr6",
    "dr7",
    "star",
    "lstar",
    "cstar",
    "sfmask",
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "gdtr_base",
    "gdtr_limit",
    "idtr_base",
    "idtr_limit",
)
"""Every register that a case can set and an observation reports, in the order of `Observation.registers`."""

REGISTER_INDEX: Final = {name: index for index, name in enumerate(REGISTERS)}


class EventKind(Enum):
    """What can arrive at a boundary from outside the instruction stream."""

    INTERRUPT = "interrupt"
    NMI = "nmi"
    MACHINE_CHECK = "machine-check"


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """Something asynchronous that becomes pending after `boundary` retired instructions (an iteration of REP counts as one)."""

    boundary: int
    kind: EventKind = field(compare=False)
    vector: int = 2


class End(StrEnum):
    """How a run ended."""

    ENDED = "ended"
    """The reserved software interrupt was delivered."""
    HALTED = "halted"
    SHUTDOWN = "shutdown"
    DID_NOT_END = "did-not-end"
    NOT_MODELLED = "not-modelled"
    UNSUPPORTED = "unsupported"
    CORE_ERROR = "core-error"
    CORE_CRASHED = "core-crashed"
    CORE_HUNG = "core-hung"


@dataclass(frozen=True, slots=True)
class Image:
    """A machine at the instant a run begins.

    `registers` has every name in REGISTERS; hidden parts of segment registers are those that the descriptor tables in
    `pages` give, except that FS and GS take `fs_base` and `gs_base`. `pages` maps physical page numbers to 4096 bytes;
    what is not there does not exist. `scratch` are pages left out of the comparison (the stack of the ending interrupt).
    """

    profile: Profile
    registers: Mapping[str, int]
    pages: Mapping[int, bytes]
    events: tuple[Event, ...] = ()
    end_vector: int = 0xF1
    scratch: frozenset[int] = frozenset()
    limit: int = 1000
    """Boundaries after which a run that has not ended is given up."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event that entered its handler: for people to read, never compared (the pushed frame is)."""

    boundary: int
    vector: int
    error_code: int | None
    rip: int
    """The return address in the frame."""
    cpl: int
    """The privilege level that was interrupted."""
    frame: int = field(default=0, compare=False)
    """RSP as the handler begins, the address of the lowest word that was pushed; 0 from who does not say."""


@dataclass(frozen=True, slots=True)
class Undefined:
    """Bits of a result that the manual leaves undefined: of RFLAGS, of RFLAGS images in memory by physical address, of DR6."""

    rflags: int = 0
    words: Mapping[int, int] = field(default_factory=dict)
    dr6: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """What can be seen of a machine when a run has ended.

    At `End.ENDED` RIP, CS, RFLAGS, RSP and SS are those that the ending interrupt saved. `memory` holds every page whose
    contents changed. `retired` is the number of boundaries passed; engines that cannot tell report -1.
    """

    end: End
    registers: tuple[int, ...] = ()
    memory: Mapping[int, bytes] = field(default_factory=dict)
    deliveries: tuple[Delivery, ...] = ()
    detail: str = ""
    retired: int = -1
    undefined: Undefined = field(default_factory=Undefined)

    def register(self, name: str) -> int:
        """The value of one register by its name in REGISTERS."""
        return self.registers[REGISTER_INDEX[name]]


@dataclass(frozen=True, slots=True)
class Step:
    """A run at one boundary, for explaining where two runs part: the state there and what led to it.

    `raised` names the exception that the instruction met first, `rule` why (the specification only); `delivered` are the
    handlers entered on the way. `memory` holds the pages that differ from the image so far.
    """

    retired: int
    registers: tuple[int, ...]
    memory: Mapping[int, bytes]
    delivered: tuple[Delivery, ...] = ()
    raised: str = ""
    rule: str = ""
    at_fetch: bool = False
    """The exception came before the instruction began."""
    held_by_engine: bool = False
    """An event was held back because the engine said so, not the adapter."""
    asynchronous: bool = False
    """An event from outside was delivered; no instruction ran."""
    undefined: Undefined = field(default_factory=Undefined)
    code_bits: int = 64
    """64, or 32 in compatibility mode: what the code at RIP is."""
    unseen: bool = False
    """The engine shows nothing of the machine at its end: registers and memory are those of the step before."""
    end: End | None = None
    detail: str = ""
