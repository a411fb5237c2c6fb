"""The manifest of somebody's own entry code: TOML that a person writes, and the values it means."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from fuzzer.case_fields import CaseError, Field, parse_number, suggestion
from fuzzer.targets.layout import END_VECTOR, PAGE
from fuzzer.targets.own.recorder import MAX_HANDLERS, MAX_WORDS
from fuzzer.targets.target import SYSCALL_MASK
from reference.linux.entry_code import Origin, StackKind

IST_SLOTS: Final = range(1, 8)
"""Slots of the interrupt stack table; one of them has to stay free for the end of the run."""
PT_REGS: Final = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss"
"""The order of the frame where the manifest gives none: Linux's."""
UNNAMED: Final = "_"
"""A word of pt_regs that means nothing to the contract."""
FRAME: Final = ("rip", "cs", "rflags", "rsp", "ss")
"""What the processor pushes, from its lowest address (SDM Vol. 3A, 7.14.2)."""
GATE_TYPES: Final = {"interrupt": 0xE, "trap": 0xF}
SYSTEM_CALL_REGISTERS: Final = {"syscall": "lstar", "syscall32": "cstar", "sysenter": "sysenter_eip"}


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate of the IDT; `ist` 0 takes RSP0 or keeps the stack."""

    vector: int
    symbol: Field
    ist: Field
    dpl: int
    type: int


@dataclass(frozen=True, slots=True)
class StackEntry:
    """A kernel stack; without `top`, the machine has one for it."""

    name: str
    kind: StackKind
    ist: int | None
    top: Field | None
    size: int
    field: Field


@dataclass(frozen=True, slots=True)
class HandlerEntry:
    """A C handler; `recorder` puts ours in its place though the code has one."""

    symbol: Field
    name: str
    origin: Origin
    vector: int | None
    recorder: bool
    stacks_from_user: tuple[str, ...]
    stacks_from_kernel: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says; every Field in it names a symbol or an address that only the code can resolve."""

    name: str
    summary: str
    origin: str
    entries: tuple[tuple[str, Field], ...]
    """Registers of the fast system calls and the symbols they hold."""
    sfmask: int
    percpu: Field | None
    memory: tuple[tuple[Field, Field], ...]
    stacks: tuple[StackEntry, ...]
    gates: tuple[Gate, ...]
    handlers: tuple[HandlerEntry, ...]
    pt_regs: tuple[str, ...]
    bad_return: tuple[Field, ...]
    kernel_code: tuple[Field, ...]

    @property
    def end_slot(self) -> int:
        """The slot of the interrupt stack table that is left to the end of the run."""
        taken = {stack.ist for stack in self.stacks}
        return next(slot for slot in reversed(IST_SLOTS) if slot not in taken)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The events that have a gate to enter by, as a sweep names them; of the interrupts the one with the lowest vector."""
        vectors = sorted(gate.vector for gate in self.gates)
        interrupts = [f"interrupt:{vector:#x}" for vector in vectors if vector >= FIRST_INTERRUPT and self._from_outside(vector)]
        others = {NMI: "nmi", MACHINE_CHECK: "mce"}
        return (*interrupts[:1], *(kind for vector, kind in others.items() if vector in vectors))

    def _from_outside(self, vector: int) -> bool:
        return all(gate.dpl == 0 for gate in self.gates if gate.vector == vector)

    def handler(self, vector: int) -> HandlerEntry | None:
        """The handler of an exception's or an interrupt's vector; the one for any vector where none names it."""
        wanted = Origin.EXCEPTION if vector < FIRST_INTERRUPT else Origin.INTERRUPT
        fitting = [each for each in self.handlers if each.origin is wanted and each.vector in (vector, None)]
        return max(fitting, key=lambda each: each.vector is not None, default=None)


NMI: Final = 2
MACHINE_CHECK: Final = 18
FIRST_INTERRUPT: Final = 32
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TOP: Final = ("name", "summary", "pt-regs", "bad-return", "system-calls", "percpu", "memory", "stacks", "gates", "handlers", "interrupted")


def read_manifest(text: str, origin: str) -> Manifest:
    """The manifest that `text` is; CaseError in one line, beginning with `origin`, where it is none."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{origin}: {' '.join(str(error).split())}; a manifest is TOML") from None
    root = Field(origin, "", json.loads(json.dumps(values, default=str)))  # dates are nothing here, and what a Field shows is JSON
    list(root.members(_TOP))
    stacks = tuple(_stacks(root.member("stacks")))
    calls, interrupted = _table(root, "system-calls"), _table(root, "interrupted")
    known = (*SYSTEM_CALL_REGISTERS, "sfmask")
    result = Manifest(
        name=_name(root.member("name")),
        summary=root.member("summary").text() if "summary" in root.value else "",
        origin=origin,
        entries=tuple((SYSTEM_CALL_REGISTERS[name], field) for name, field in calls.members(known) if name != "sfmask"),
        sfmask=calls.member("sfmask").number(32) if "sfmask" in calls.value else SYSCALL_MASK,
        percpu=_percpu(_table(root, "percpu")),
        memory=tuple((Field(origin, field.path, place), field) for place, field in _table(root, "memory").members()),
        stacks=stacks,
        gates=tuple(_gates(_table(root, "gates"), stacks)),
        handlers=tuple(_handlers(_table(root, "handlers"), [each.name for each in stacks])),
        pt_regs=_pt_regs(root.member("pt-regs")),
        bad_return=_list(root.member("bad-return")),
        kernel_code=_list(interrupted.member("kernel")) if list(interrupted.members(("kernel",))) else (),
    )
    _check_whole(root, result)
    return result


def _check_whole(root: Field, manifest: Manifest) -> None:
    if not manifest.gates and not manifest.entries:
        root.refuse('no way in: name one by [gates] 14 = { symbol = "page_fault" } or [system-calls] syscall = "syscall_entry"')
    if not manifest.handlers:
        root.refuse('no [handlers]: the contract is judged where a C handler begins; write [handlers.do_page_fault] origin = "exception"')
    if len(manifest.handlers) > MAX_HANDLERS:
        root.member("handlers").refuse(f"{len(manifest.handlers)} handlers; there is room for {MAX_HANDLERS} recorders")


def _table(root: Field, name: str) -> Field:
    field = root.member(name)
    if field.value is None:
        return Field(field.origin, field.path, {})
    if not isinstance(field.value, dict):
        field.refuse(f"{field.shown()} is not a table; write [{name}]")
    return field


def _name(field: Field) -> str:
    name = field.text() if field.value is not None else ""
    if not is_name(name):
        what = "it is missing" if field.value is None else f"{field.shown()} is not a name"
        field.refuse(f'{what}; write small letters, digits and single dashes: name = "my-kernel"')
    return name


def is_name(text: str) -> bool:
    """Whether a target may be called so; its folder is."""
    return _NAME.fullmatch(text) is not None


def _list(field: Field) -> tuple[Field, ...]:
    return () if field.value is None else tuple(field.items())


def _percpu(field: Field) -> Field | None:
    given = dict(field.members(("base",)))
    return given.get("base")


def _stacks(field: Field) -> Iterator[StackEntry]:
    kinds = {kind.value.lower(): kind for kind in StackKind}
    slots: dict[int, str] = {}
    for name, entry in field.members() if field.value is not None else ():
        given = dict(entry.members(("kind", "ist", "top", "size")))
        kind = kinds[entry.member("kind").choice(kinds, "kind")]
        ist = _slot(entry, slots, name) if kind is StackKind.IST else None
        if ist is None and "ist" in given:
            given["ist"].refuse('only a stack of kind "ist" has a slot; drop one of both')
        size = given["size"].number() if "size" in given else PAGE
        if size == 0 or size % 16:
            entry.member("size").refuse(f"{size:#x} is not a size; write a multiple of 16")
        yield StackEntry(name, kind, ist, given.get("top"), size, entry)
    if len(slots) == len(IST_SLOTS):
        field.refuse("all 7 slots of the interrupt stack table are taken; leave one to the end of the run")
    names = [] if field.value is None else [entry["kind"] for entry in field.value.values()]
    if names.count("thread") != 1:
        field.refuse('there has to be one stack of kind "thread", which RSP0 points to; write [stacks.thread] kind = "thread"')


def _slot(entry: Field, slots: dict[int, str], name: str) -> int:
    field = entry.member("ist")
    if field.value is None:
        entry.refuse('"ist" is missing: the slot of the interrupt stack table, 1 to 7')
    slot = field.number(3)
    if slot not in IST_SLOTS:
        field.refuse(f"there is no slot {slot}; use 1 to 7")
    if slot in slots:
        field.refuse(f"slot {slot} is {slots[slot]}'s already; take another")
    slots[slot] = name
    return slot


def _gates(field: Field, stacks: Iterable[StackEntry]) -> Iterator[Gate]:
    slots = {stack.ist for stack in stacks if stack.ist is not None}
    seen: dict[int, str] = {}
    for key, entry in field.members():
        vector = parse_number(key)
        if vector is None or vector > 0xFF:
            entry.refuse(f'"{key}" is not a vector; write 14 or 0xe')
        if vector == END_VECTOR:
            entry.refuse(f"vector {END_VECTOR:#x} ends the run; take another")
        if vector in seen:
            entry.refuse(f"vector {vector} is given twice, as {seen[vector]} and {key}; drop one")
        seen[vector] = key
        given = dict(entry.members(("symbol", "ist", "dpl", "type")))
        if "symbol" not in given:
            entry.refuse('"symbol" is missing: where the gate leads')
        ist = given.get("ist", Field(entry.origin, f"{entry.path}.ist", 0))
        if ist.number(3) and ist.value not in slots:
            ist.refuse(f'no stack has slot {ist.value}; write [stacks.NAME] kind = "ist", ist = {ist.value}')
        kind = given["type"].choice(GATE_TYPES, "type of gate") if "type" in given else "interrupt"
        yield Gate(vector, given["symbol"], ist, given["dpl"].number(2) if "dpl" in given else 0, GATE_TYPES[kind])


def _handlers(field: Field, stacks: list[str]) -> Iterator[HandlerEntry]:
    origins = {origin.value.lower(): origin for origin in Origin}
    for name, entry in field.members():
        given = dict(entry.members(("symbol", "origin", "vector", "recorder", "stacks-from-user", "stacks-from-kernel")))
        origin = origins[entry.member("origin").choice(origins, "origin")]
        yield HandlerEntry(
            symbol=given.get("symbol", Field(entry.origin, entry.path, name)),
            name=name,
            origin=origin,
            vector=given["vector"].number(8) if "vector" in given else None,
            recorder=given["recorder"].flag() if "recorder" in given else False,
            stacks_from_user=_stack_names(entry.member("stacks-from-user"), stacks),
            stacks_from_kernel=_stack_names(entry.member("stacks-from-kernel"), stacks),
        )


def _stack_names(field: Field, stacks: list[str]) -> tuple[str, ...]:
    return tuple(item.choice(stacks, "stack") for item in _list(field))


def _pt_regs(field: Field) -> tuple[str, ...]:
    words = tuple(field.text().split()) if field.value is not None else tuple(PT_REGS.split())
    known = (*PT_REGS.split(), UNNAMED)
    for number, word in enumerate(words):
        if word not in known:
            field.refuse(f'word {number} is "{word}"; {suggestion(word, known)}')
        if word != UNNAMED and words.count(word) > 1:
            field.refuse(f'"{word}" stands in it twice; drop one, or write {UNNAMED} for a word that means nothing')
    if words[-len(FRAME) :] != FRAME:
        field.refuse(f"it has to end with what the processor pushes: {' '.join(FRAME)}")
    missing = [name for name in PT_REGS.split() if name not in words and name != "orig_rax"]
    if missing:
        field.refuse(f'"{missing[0]}" is missing: the contract looks at every general register')
    if len(words) > MAX_WORDS:
        field.refuse(f"{len(words)} words; a record has room for {MAX_WORDS}")
    return words
