"""From the step at which two runs part to the signature of its cause."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from iced_x86 import FlowControl, Mnemonic, OpKind, Register
from iced_x86 import Instruction as Decoded

from fuzzer.compare import Difference
from fuzzer.cores.core import Core
from fuzzer.outcome import CRASHES, field_names, outcome, with_delivery
from fuzzer.targets.tables import FRAMES
from reference.decode import OPERAND_SIZE, PREFIXES
from reference.image import REGISTER_INDEX, End, Step
from reference.instructions import NAMES, lookup

GENERIC_RULES = ("SDM Vol. 1, 3.3.7.1", "SDM Vol. 3A, 4.6", "SDM Vol. 3A, 4.7", "SDM Vol. 3A, 7.15")
"""Rules about any access to memory: the instruction that made the access is not the cause."""

RESUME_ONLY = ("rflags.RF",)
"""A difference that belongs to the end of any instruction (SDM Vol. 3B, 18.3.1.1)."""

AREAS = ("gs", "fault", "stack", "flags", "control", "other")
_AREA_FIELDS = {
    "gs": ("gs", "gs_base", "kernel_gs_base"),
    "stack": ("rsp", "ss"),
    "flags": ("rflags",),
    "control": ("rip", "cs", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "ldtr", "tr"),
}
_STACKS = tuple(f"memory:{name}" for name in FRAMES if name.endswith(("_stack", "_stacks")))


@dataclass(frozen=True, slots=True)
class Signature:
    """What all cases of one cause have in common."""

    core: str
    profile: str
    kind: str
    area: str
    cause: str
    """The instruction or delivery step."""
    rule: str
    """What the manual says there."""
    fields: tuple[str, ...]
    expected: str
    observed: str
    by: str
    """`engine` where the engine itself did the step, `adapter` where our code stood in for it."""

    @property
    def text(self) -> str:
        """The identity: equal for equal causes."""
        rule = self.rule if self.expected != "completes" else ""
        return " | ".join(
            (self.core, self.profile, self.kind, self.area, self.cause, rule, ",".join(self.fields), f"{self.expected} -> {self.observed}")
        )

    @property
    def title(self) -> str:
        """One line for people."""
        what = f" ({', '.join(self.fields)})" if self.fields else ""
        return f"{self.cause}: expected {self.expected}, observed {self.observed}{what}"


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step at which two runs differ: the state before it, both sides after it, and the instruction in between."""

    before: Step
    spec: Step
    other: Step
    code: bytes
    decoded: Decoded | None
    """None where no instruction could be fetched."""
    differences: tuple[Difference, ...]

    @property
    def asynchronous(self) -> bool:
        """An event was due, and no instruction."""
        return self.spec.asynchronous and not self.spec.raised


def sign(profile: str, core: Core, parting: Parting) -> Signature:
    """The signature of a parting: what was being done, both outcomes, and what differs where they are the same."""
    expected, observed = outcome(parting.spec), outcome(parting.other)
    if expected == observed and parting.spec.raised:
        # The same exception, met in the same place: what tells them apart is how it was delivered.
        expected, observed = with_delivery(parting.spec), with_delivery(parting.other)
    same = expected == observed
    fields = tuple(field_names(parting.spec, parting.differences)) if same else ()
    cause, rule = _cause(parting, fields), _rule(parting, fields)
    if observed.startswith("#PF") and not expected.startswith("#PF") and expected != "#UD":
        expected, rule = "no #PF", _ACCESS_RULE
    elif expected == "#UD" and not same:
        observed = "no #UD"
    return Signature(
        core=core.name,
        profile=profile,
        kind=_kind(parting.other),
        area=_area(same, parting.differences),
        cause=cause,
        rule=rule,
        fields=fields,
        expected=expected,
        observed=observed,
        by=_by(core, parting, fields),
    )


def _cause(parting: Parting, fields: tuple[str, ...]) -> str:
    """The instruction or delivery step; what any instruction would have met is not put down to the one that met it."""
    decoded = parting.decoded
    if parting.asynchronous:
        return "event held back" if parting.other.held_by_engine else "event delivery"
    if _is_resume_only(parting, fields):
        return "RF after an instruction"
    if decoded is not None and (decoded.is_invalid or _ignored_prefix(decoded, parting.code)):
        return instruction_name(decoded, parting.before, parting.code)
    if decoded is None or parting.spec.at_fetch or parting.other.at_fetch:
        return "instruction fetch"
    if parting.spec.raised and parting.spec.rule.startswith(GENERIC_RULES):
        return "memory access"
    return instruction_name(decoded, parting.before, parting.code)


def _is_resume_only(parting: Parting, fields: tuple[str, ...]) -> bool:
    """RF is left set by an instruction that has no say in it."""
    return fields == RESUME_ONLY and (parting.decoded is None or parting.decoded.mnemonic not in _FAR_RETURNS)


def of_crash(core: str, profile: str, end: End) -> Signature:
    """The signature of a case that took the engine's process with it, or never came back: no step of it can be told."""
    kind = CRASHES[end]
    return Signature(core, profile, kind, "other", "the whole case", "an emulator survives any guest", (), "an end", kind, "engine")


def of_parting_unseen(core: str, profile: str, differences: tuple[Difference, ...]) -> Signature:
    """The signature of a difference at the end that does not come up when both sides run boundary by boundary."""
    fields = tuple(sorted({difference.field.split(":")[0] for difference in differences}))
    rule = "the result of a run does not depend on how many instructions the engine is asked to run at a time"
    return Signature(
        core, profile, "divergence", _area(True, differences), "running many at once", rule, fields, "completes", "completes", "engine"
    )


def _kind(other: Step) -> str:
    return "crash" if other.end in CRASHES else "divergence"


def _area(same: bool, differences: Iterable[Difference]) -> str:
    names = {difference.field for difference in differences}
    if names & set(_AREA_FIELDS["gs"]):
        return "gs"
    if not same:
        return "fault"
    for area in ("stack", "flags", "control"):
        if names & set(_AREA_FIELDS[area]):
            return area
    return "stack" if any(name.startswith(_STACKS) for name in names) else "other"


def _rule(parting: Parting, fields: tuple[str, ...]) -> str:
    """The rule that decides: the one that a fault names, or what the manual says of the instruction."""
    if parting.spec.raised:
        return parting.spec.rule
    if parting.asynchronous or parting.decoded is None:
        return "SDM Vol. 3A, 7.14 and Table 7-2: delivery of events through the IDT, and their priorities"
    if _is_resume_only(parting, fields):
        return "SDM Vol. 3B, 18.3.1.1: the processor clears RF after the successful execution of an instruction, IRET excepted"
    function, _ = lookup(parting.decoded)
    return " ".join((function.__doc__ or "").split())


_SEGMENT_LOADS: dict[int, str] = {Register.ES: "es", Register.SS: "ss", Register.DS: "ds", Register.FS: "fs", Register.GS: "gs"}
_MSR_NAMES = {
    0x174: "sysenter_cs", 0x175: "sysenter_esp", 0x176: "sysenter_eip", 0xC0000080: "efer", 0xC0000081: "star", 0xC0000082: "lstar",
    0xC0000083: "cstar", 0xC0000084: "sfmask", 0xC0000100: "fs_base", 0xC0000101: "gs_base", 0xC0000102: "kernel_gs_base",
}  # fmt: skip


_ACCESS_RULE = "SDM Vol. 3A, 4.6.1 and 4.7: which accesses to memory fault; by the specification none of this instruction does"
_NEAR_BRANCHES = (FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH, FlowControl.CALL,
                  FlowControl.INDIRECT_CALL, FlowControl.RETURN)  # fmt: skip


def _has_prefix(code: bytes, prefix: int) -> bool:
    return prefix in itertools.takewhile(PREFIXES.__contains__, code)


def _ignored_prefix(decoded: Decoded, code: bytes) -> bool:
    """A near branch with an operand-size prefix, which one vendor ignores and the other does not."""
    far = decoded.is_call_far_indirect or decoded.is_jmp_far_indirect or decoded.mnemonic in _FAR_RETURNS
    return decoded.flow_control in _NEAR_BRANCHES and not far and _has_prefix(code, OPERAND_SIZE)


def instruction_name(decoded: Decoded, before: Step, code: bytes) -> str:
    """An instruction as far as it matters for a cause: mnemonic, operand size of stack forms, special registers, the MSR."""
    if decoded.is_invalid:
        return "LOCK where it is not allowed" if _has_prefix(code, 0xF0) else "undefined encoding"
    name = NAMES[decoded.mnemonic]
    if _ignored_prefix(decoded, code):
        return f"near {'jcc' if decoded.flow_control == FlowControl.CONDITIONAL_BRANCH else name} with a 66 prefix"
    if decoded.mnemonic in (Mnemonic.RDMSR, Mnemonic.WRMSR):
        number = before.registers[REGISTER_INDEX["rcx"]] & 0xFFFF_FFFF
        return f"{name} {_MSR_NAMES.get(number, 'unknown')}"
    special = [_special(decoded.op_register(n), n) for n in range(decoded.op_count) if decoded.op_kind(n) == OpKind.REGISTER]
    suffix = " ".join(text for text in special if text)
    if decoded.stack_pointer_increment in (-2, 2):
        name += " (16-bit)"
    return f"{name} {suffix}" if suffix else name


def _special(register: int, position: int) -> str:
    way = "to" if position == 0 else "from"
    if register in _SEGMENT_LOADS:
        return f"{way} {_SEGMENT_LOADS[register]}"
    for first, last, letters in ((Register.CR0, Register.CR15, "cr"), (Register.DR0, Register.DR15, "dr")):
        if first <= register <= last:
            number = register - first
            return f"{way} {letters}{number if letters == 'cr' or number > 3 else 'n'}"
    return ""


_FAR_RETURNS = (
    Mnemonic.RETF,
    Mnemonic.IRET,
    Mnemonic.IRETD,
    Mnemonic.IRETQ,
    Mnemonic.SYSRET,
    Mnemonic.SYSRETQ,
    Mnemonic.SYSEXIT,
    Mnemonic.SYSEXITQ,
)
_DEBUG = 1
_ADAPTERS_OWN = (Mnemonic.SYSCALL, Mnemonic.SYSENTER, Mnemonic.INT, Mnemonic.INT3)


def _by(core: Core, parting: Parting, fields: tuple[str, ...]) -> str:
    """Whose step it was. The engine executed it unless an event was delivered, or the adapter stands in for the instruction."""
    spec, other, decoded = parting.spec, parting.other, parting.decoded
    due, seen = ({entry.vector for entry in step.delivered} for step in (spec, other))
    reports = bool(fields) and set(fields) <= {"cr2", "dr6"} and (other.raised or _DEBUG in seen)
    lost_trap = spec.asynchronous and due == {_DEBUG} and _DEBUG not in seen
    if core.delivers_events or other.held_by_engine or reports or lost_trap:
        return "engine"  # what it raises, reports and holds back is its own
    ours = decoded is not None and decoded.mnemonic in _ADAPTERS_OWN
    delivery = spec.asynchronous or other.asynchronous or bool(spec.delivered)
    return "adapter" if (ours or delivery) and spec.raised == other.raised else "engine"
