"""Entering a handler through the 64-bit IDT (SDM Vol. 3A, 7.14; Vol. 2A, INT n, operation IA-32e-MODE)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from reference.bits import AC, CANONICAL_LOW_END, IF, MASK64, NT, RF, TF, VM, canonical
from reference.debug import GENERAL_DETECT, forbid_watched
from reference.descriptors import SYSTEM_TRAP_GATE, Descriptor, Gate, Segment, gate_of
from reference.faults import VECTORS, Fault, Kind, NotModelled, Vector, makes_double_fault, require
from reference.image import Delivery
from reference.machine import RSP, SS, Machine
from reference.memory import check_store_implicit, load_implicit, physical, store_implicit
from reference.profiles import Cr4
from reference.segmentation import enter_code_segment, is_null, read_descriptor


class Ended(Exception):
    """The reserved software interrupt was taken: the run is over, and the machine is as that interrupt found it."""


class Source(Enum):
    """Where an event comes from: decides the EXT bit, the DPL check and the pushed RF."""

    FAULT = "fault"
    TRAP = "trap"
    SOFTWARE = "software interrupt"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Entry:
    """An event on its way to a handler: RIP is where the handler will return to."""

    vector: int
    source: Source
    rip: int
    error_code: int | None = None
    resume: bool = False
    """The pushed RFLAGS image has RF set (SDM Vol. 3B, 18.3.1.1)."""

    @property
    def external(self) -> int:
        """The EXT bit of error codes met on the way: 0 for INT n, INT3 and INTO only (SDM Vol. 2A, INT n)."""
        return 0 if self.source is Source.SOFTWARE else 1

    @property
    def kind(self) -> Kind:
        """The class for the double-fault rule; interrupts and software interrupts are benign (SDM Vol. 3A, Table 7-4)."""
        if self.source in (Source.SOFTWARE, Source.EXTERNAL):
            return Kind.BENIGN
        info = VECTORS.get(self.vector)
        return info.kind if info else Kind.BENIGN


def from_fault(fault: Fault, rip: int) -> Entry:
    """The entry for a fault at the instruction that stands at `rip`."""
    return Entry(fault.vector, Source.FAULT, rip, fault.error_code, fault.resume)


def enter(m: Machine, entry: Entry) -> None:
    """Deliver `entry`, or the exception that its delivery meets, or #DF (SDM Vol. 3A, 7.15, Interrupt 8). Raises Shutdown."""
    while True:
        try:
            deliver(m, entry)
            return
        except Fault as fault:
            entry = _escalate(m, entry, fault)


def _escalate(m: Machine, entry: Entry, fault: Fault) -> Entry:
    if fault.cr2 is not None:
        m.cr2 = fault.cr2
    if makes_double_fault(entry.kind, VECTORS[fault.vector].kind):
        return Entry(Vector.DF, Source.FAULT, m.rip, 0)
    return from_fault(fault, m.rip)


def deliver(m: Machine, entry: Entry) -> None:
    """Enter the handler the IDT names, or raise the Fault that prevents it; nothing has changed then."""
    gate = fetch_gate(m, entry)
    code, cpl = fetch_handler_segment(m, gate, entry)
    stack = choose_stack(m, gate, cpl, entry)
    words = frame_words(m, entry)
    frame = check_frame_address(stack, len(words), entry)
    require(canonical(gate.offset), Vector.GP, entry.external, "SDM Vol. 2A, INT n: the handler's RIP in the gate is not canonical")
    if entry.vector == m.end_vector and entry.source is Source.SOFTWARE:
        m.rip = entry.rip
        raise Ended
    push_frame(m, frame, words)
    _switch(m, gate, code, cpl, frame, entry)


def fetch_gate(m: Machine, entry: Entry) -> Gate:
    """The gate of the vector: within the limit, of a valid type, reachable, present - in this order (SDM Vol. 2A, INT n)."""
    vector, external = entry.vector, entry.external
    error = vector << 3 | 2 | external
    require(vector * 16 + 15 <= m.idtr_limit, Vector.GP, error, "SDM Vol. 2A, INT n: the vector is past the IDT limit")
    address = (m.idtr_base + vector * 16) & MASK64
    gate = gate_of(load_implicit(m, address, 8), load_implicit(m, address + 8, 8))
    require(gate.is_interrupt_or_trap, Vector.GP, error, "SDM Vol. 2A, INT n: the gate is neither an interrupt nor a trap gate")
    if entry.source is Source.SOFTWARE:
        require(
            gate.dpl >= m.cpl, Vector.GP, vector << 3 | 2, "SDM Vol. 2A, INT n: the gate's DPL is below the CPL of a software interrupt"
        )
    require(gate.present, Vector.NP, error, "SDM Vol. 2A, INT n: the gate is not present")
    return gate


def fetch_handler_segment(m: Machine, gate: Gate, entry: Entry) -> tuple[Descriptor, int]:
    """The handler's code segment and the CPL it will run at (SDM Vol. 2A, INT n, TRAP-OR-INTERRUPT-GATE)."""
    selector, external = gate.selector, entry.external
    error = selector & 0xFFFC | external
    require(not is_null(selector), Vector.GP, external, "SDM Vol. 2A, INT n: the gate's code selector is null")
    descriptor = read_descriptor(m, selector, Vector.GP, external)
    require(
        descriptor.is_code and descriptor.dpl <= m.cpl, Vector.GP, error, "SDM Vol. 2A, INT n: no code segment, or its DPL is above the CPL"
    )
    if not descriptor.long or descriptor.default_big:
        # SDM Vol. 3A, 7.14.1 gives the vector as the error code, INT n names no such check: form and order are open.
        raise NotModelled("a handler's code segment that is not 64-bit code")
    require(descriptor.present, Vector.NP, error, "SDM Vol. 2A, INT n: the handler's code segment is not present")
    return descriptor, m.cpl if descriptor.is_conforming else descriptor.dpl


def choose_stack(m: Machine, gate: Gate, cpl: int, entry: Entry) -> int:
    """The RSP the frame is pushed from, aligned to 16 bytes (SDM Vol. 3A, 7.14.2 and 7.14.5).

    An IST slot if the gate names one, RSPn of the TSS on a change of privilege, the present RSP otherwise.
    """
    if gate.ist:
        offset = 28 + gate.ist * 8
    elif cpl < m.cpl:
        offset = 4 + cpl * 8
    else:
        return m.gpr[RSP] & ~0xF
    error = m.tr.selector & 0xFFFC | entry.external
    require(offset + 7 <= m.tr.limit, Vector.TS, error, "SDM Vol. 2A, INT n: the stack pointer is past the TSS limit")
    stack = load_implicit(m, (m.tr.base + offset) & MASK64, 8)
    return stack & ~0xF


def frame_words(m: Machine, entry: Entry) -> list[int]:
    """What is pushed, first word first: SS, RSP, RFLAGS, CS, RIP and the error code if the vector has one (SDM Vol. 3A, 7.14.2).

    RF is 1 for what resumes, and 0 for a software interrupt, which cleared it at its start (SDM Vol. 3B, 18.3.1.1).
    """
    image = m.rflags | RF if entry.resume else m.rflags & ~RF if entry.source is Source.SOFTWARE else m.rflags
    words = [m.ss.selector, m.gpr[RSP], image, m.cs.selector, entry.rip]
    return words if entry.error_code is None else [*words, entry.error_code]


def check_frame_address(stack: int, words: int, entry: Entry) -> int:
    """The RSP after `words` pushes from `stack`, or #SS(EXT) where a word would not be canonical (SDM Vol. 2A, INT n)."""
    if stack == CANONICAL_LOW_END:
        # RSP is not canonical, every word would be.
        raise NotModelled("an interrupt stack that begins where the canonical addresses end")
    frame = (stack - 8 * words) & MASK64
    rule = "SDM Vol. 2A, INT n: the handler's stack address is not canonical"
    require(canonical(frame) and canonical((stack - 1) & MASK64), Vector.SS, entry.external, rule)
    return frame


def push_frame(m: Machine, frame: int, words: list[int]) -> None:
    """Write the frame at `frame`, whole or not at all: the manual does not speak of half a frame."""
    last = (frame + 8 * len(words) - 8) & MASK64
    try:
        check_store_implicit(m, last, 8)
        check_store_implicit(m, frame, 8)
    except Fault:
        if m.rflags & AC and m.cr4 & Cr4.SMAP:
            # Whether the pushes are implicit accesses, for which AC does not lift SMAP, SDM Vol. 3A, 5.6 does not say.
            raise NotModelled("a page fault on an interrupt frame with SMAP and RFLAGS.AC") from None
        raise
    forbid_watched(m, frame, 8 * len(words))

    for index, word in enumerate(words):
        store_implicit(m, (last - 8 * index) & MASK64, 8, word)
    if m.undefined:
        m.undefined_words[physical(m, (last - 16) & MASK64, user=False)] = m.undefined


def _switch(m: Machine, gate: Gate, code: Descriptor, cpl: int, frame: int, entry: Entry) -> None:
    """The part that cannot fault: CS, SS, RSP, RIP and RFLAGS of the handler."""
    m.deliveries.append(Delivery(m.retired, entry.vector, entry.error_code, entry.rip, m.cpl, frame))
    if cpl < m.cpl:
        # A null selector with RPL = the new CPL (SDM Vol. 3A, 7.14.2).
        m.segments[SS] = Segment.null(cpl)
    enter_code_segment(m, gate.selector, code, cpl)
    m.gpr[RSP] = frame
    m.rip = gate.offset
    m.repeating = False
    cleared = TF | NT | RF | VM | (0 if gate.type == SYSTEM_TRAP_GATE else IF)
    m.rflags &= ~cleared
    if entry.vector == Vector.DB and entry.source is not Source.SOFTWARE:
        m.dr7 &= ~GENERAL_DETECT
