"""Where the parts of a kernel's entry code are: what the contract has to know of a target, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class StackKind(Enum):
    """What a kernel stack is for."""

    THREAD = "thread"
    INTERRUPT = "interrupt"
    IST = "IST"
    ENTRY = "entry"
    """A trampoline: the processor pushes a frame there and no handler runs on it."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Linear addresses `start` to `end` - 1; it grows down from `end`."""

    name: str
    kind: StackKind
    start: int
    end: int


class Origin(Enum):
    """What makes a handler run."""

    EXCEPTION = "exception"
    NMI = "NMI"
    MACHINE_CHECK = "machine check"
    INTERRUPT = "interrupt"
    SYSTEM_CALL = "system call"


@dataclass(frozen=True, slots=True)
class Handler:
    """A C handler (pt_regs in RDI, error code in RSI), and the names of the stacks it may run on, by where the event came from."""

    name: str
    origin: Origin
    vector: int | None = None
    """None where several vectors or a fast system call lead to it."""
    stacks_from_user: tuple[str, ...] = ()
    stacks_from_kernel: tuple[str, ...] = ()
    """Empty: the one that the interrupted code was on."""


@dataclass(frozen=True, slots=True)
class Convention:
    """Where an entry keeps, by agreement with user mode, less than every register: its fields as `EntryCode.pt_regs` names them."""

    open: frozenset[str] = frozenset()
    """Fields about which the handler is promised nothing: what the entry never learns, or user mode cannot see."""
    clobbered: frozenset[str] = frozenset()
    """Registers in which the return may leave anything."""


@dataclass(frozen=True, slots=True)
class EntryCode:
    """Addresses are linear; `pt_regs` maps the fields r15 .. ss and orig_rax to their offsets."""

    handlers: Mapping[int, Handler]
    """By address of the handler's first instruction."""
    percpu: int
    """GS.base while any handler runs."""
    kernel_cr3: int
    stacks: tuple[Stack, ...]
    pt_regs: Mapping[str, int]
    text: tuple[tuple[int, int], ...]
    """(start, end) of the entry code and its handlers."""
    symbols: Mapping[str, int] = field(default_factory=dict)
    bad_return: frozenset[int] = frozenset()
    """Addresses of the IRET instructions that return to user mode, whose faults the entry code reports as user mode's."""
    gs_change: frozenset[int] = frozenset()
    """Addresses of kernel instructions that load GS between two SWAPGS: after a fault there the kernel's GS stays."""
    conventions: Mapping[int, Convention] = field(default_factory=dict)
    """By address of the entry point: the first instruction that runs after the event."""
