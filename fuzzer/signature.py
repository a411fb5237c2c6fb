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
from reference.image import REGISTER_INDEX, End, Image, Step
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


def sign(
    image: Image,
    core: Core,
    decoded: Decoded | None,
    code: bytes,
    before: Step,
    spec: Step,
    other: Step,
    differences: tuple[Difference, ...],
) -> Signature:
    """The signature of a parting: the instruction (None where none could be fetched), both outcomes and what differs."""
    expected, observed = outcome(spec), outcome(other)
    if expected == observed and spec.raised:
        # The same exception, met in the same place: what tells them apart is how it was delivered.
        expected, observed = with_delivery(spec), with_delivery(other)
    same = expected == observed
    stray = observed.startswith("#PF") and not expected.startswith("#PF") and expected != "#UD"
    asynchronous = spec.asynchronous and not spec.raised
    cause = _cause(decoded, code, before, spec, other, asynchronous)
    fields = tuple(field_names(spec, differences)) if same else ()
    if fields == RESUME_ONLY and not asynchronous and (decoded is None or decoded.mnemonic not in _FAR_RETURNS):
        cause = "RF after an instruction"
    return Signature(
        core=core.name,
        profile=image.profile.name,
        kind=_kind(other),
        area=_area(same, differences),
        cause=cause,
        rule=_ACCESS_RULE if stray else _rule(decoded, spec, asynchronous, fields),
        fields=fields,
        expected="no #PF" if stray else expected,
        observed="no #UD" if expected == "#UD" and not same else observed,
        by=_by(core, decoded, spec, other, fields),
    )


def _cause(decoded: Decoded | None, code: bytes, before: Step, spec: Step, other: Step, asynchronous: bool) -> str:
    """The instruction or delivery step; what any instruction would have met is not put down to the one that met it."""
    if asynchronous:
        return "event held back" if other.held_by_engine else "event delivery"
    if decoded is not None and (decoded.is_invalid or _ignored_prefix(decoded, code)):
        return instruction_name(decoded, before, code)
    if decoded is None or spec.at_fetch or other.at_fetch:
        return "instruction fetch"
    if spec.raised and spec.rule.startswith(GENERIC_RULES):
        return "memory access"
    return instruction_name(decoded, before, code)


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


def _rule(decoded: Decoded | None, spec: Step, asynchronous: bool, fields: tuple[str, ...]) -> str:
    """The rule that decides: the one that a fault names, or what the manual says of the instruction."""
    if spec.raised:
        return spec.rule
    if asynchronous or decoded is None:
        return "SDM Vol. 3A, 7.14 and Table 7-2: delivery of events through the IDT, and their priorities"
    if fields == RESUME_ONLY and decoded.mnemonic not in _FAR_RETURNS:
        return "SDM Vol. 3B, 18.3.1.1: the processor clears RF after the successful execution of an instruction, IRET excepted"
    function, _ = lookup(decoded)
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


def _by(core: Core, decoded: Decoded | None, spec: Step, other: Step, fields: tuple[str, ...]) -> str:
    """Whose step it was. The engine executed it unless an event was delivered, or the adapter stands in for the instruction."""
    if core.delivers_events:
        return "engine"
    reports = (other.raised or any(entry.vector == 1 for entry in other.delivered)) and set(fields) <= {"cr2", "dr6"} and fields
    if other.held_by_engine or reports:
        return "engine"  # it raised the exception, and said what for
    ours = decoded is not None and decoded.mnemonic in _ADAPTERS_OWN and spec.raised == other.raised
    expected, seen = ({entry.vector for entry in step.delivered} for step in (spec, other))
    if spec.asynchronous and expected == {_DEBUG} and _DEBUG not in seen:
        return "engine"  # a single-step trap: the engine raises those itself
    delivery = (spec.asynchronous or other.asynchronous or bool(spec.delivered)) and spec.raised == other.raised
    return "adapter" if ours or delivery else "engine"
