"""From the step at which two runs part to the signature of its cause."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from iced_x86 import FlowControl, Mnemonic, OpKind, Register
from iced_x86 import Instruction as Decoded

from fuzzer.compare import Difference
from fuzzer.cores.core import Core
from fuzzer.targets.tables import FRAMES
from reference.bits import FLAG_NAMES
from reference.faults import exception_name
from reference.image import REGISTER_INDEX, Delivery, End, Image, Step
from reference.instructions import NAMES, lookup

GENERIC_RULES = ("SDM Vol. 1, 3.3.7.1", "SDM Vol. 3A, 4.", "SDM Vol. 3A, 7.15")
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
_FRAME_WORDS = ("rip", "cs", "rflags", "rsp", "ss")
_CRASHES = {End.CORE_ERROR: "core-error", End.CORE_CRASHED: "crash", End.CORE_HUNG: "hang"}


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
    expected, observed = _outcome(spec), _outcome(other)
    if expected == observed and spec.raised:
        # The same exception, met in the same place: what tells them apart is how it was delivered.
        expected, observed = _with_delivery(spec), _with_delivery(other)
    same = expected == observed
    stray = observed.startswith("#PF") and not expected.startswith("#PF")
    generic = spec.raised and spec.rule.startswith(GENERIC_RULES)
    asynchronous = spec.asynchronous and not spec.raised
    if asynchronous:
        cause = "event delivery" if spec.delivered else "event held back"
    elif decoded is None or spec.at_fetch or other.at_fetch:
        cause = "instruction fetch"
    elif generic:
        cause = "memory access"
    else:
        cause = instruction_name(decoded, before, code)
    fields = tuple(_field_names(spec, differences)) if same else ()
    if fields == RESUME_ONLY and not asynchronous:
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
        observed=observed,
        by=_by(core, decoded, spec, other),
    )


def of_crash(core: str, profile: str, end: End) -> Signature:
    """The signature of a case that took the engine's process with it, or never came back: no step of it can be told."""
    kind = _CRASHES[end]
    return Signature(core, profile, kind, "other", "the whole case", "an emulator survives any guest", (), "an end", kind, "engine")


def of_parting_unseen(core: str, profile: str, differences: tuple[Difference, ...]) -> Signature:
    """The signature of a difference at the end that does not come up when both sides run boundary by boundary."""
    fields = tuple(sorted({re.sub(r"\+0x[0-9a-f]+$", "", difference.field) for difference in differences}))
    rule = "the result of a run does not depend on how many instructions the engine is asked to run at a time"
    return Signature(
        core, profile, "divergence", _area(True, differences), "running many at once", rule, fields, "completes", "completes", "engine"
    )


def _kind(other: Step) -> str:
    return "crash" if other.end in _CRASHES else "divergence"


def _outcome(step: Step) -> str:
    """What a step did: `completes`, the exception that was met first, an event, or the end that it came to."""
    if step.end in _CRASHES:
        return re.sub(r"0x[0-9a-f]+", "…", step.detail) or _CRASHES[step.end]
    if step.raised:
        return _normal(step.raised)
    delivered = ", ".join(_delivered(entry) for entry in step.delivered)
    if step.end is not None and step.end is not End.ENDED:
        return delivered or step.end.value
    return f"delivers {delivered}" if delivered else "completes"


def _with_delivery(step: Step) -> str:
    """The exception that a step met and what came of it: #DF or a shutdown, where its own handler could not be entered."""
    raised = _normal(step.raised)
    delivered = ", ".join(_delivered(entry) for entry in step.delivered)
    if step.end is End.SHUTDOWN:
        return f"{raised}, shutdown"
    return raised if delivered in ("", raised) else f"{raised} delivered as {delivered}"


def _delivered(entry: Delivery) -> str:
    if entry.vector >= 32:
        return "interrupt"
    return _normal(exception_name(entry.vector, entry.error_code))


def _normal(exception: str) -> str:
    """An exception with its error code reduced to its kind: a selector's number is a value, not a cause."""
    match = re.fullmatch(r"(#?\w+)\((0x[0-9a-f]+)\)", exception)
    if match is None:
        return exception
    name, code = match[1], int(match[2], 16)
    if name == "#PF":
        return f"#PF({''.join(letter for bit, letter in enumerate('PWURI') if code >> bit & 1) or '0'})"
    external = "+EXT" if code & 1 else ""
    if code & 2:
        return f"{name}(IDT{external})"
    return f"{name}({'selector' if code & 0xFFFC else '0'}{external})"


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


def _field_names(spec: Step, differences: Iterable[Difference]) -> list[str]:
    """The differing fields without values: flags by name, words of a pushed frame by their place in it, other memory by region."""
    names: set[str] = set()
    for difference in differences:
        if difference.field == "rflags":
            names.update(_flag_fields("rflags", difference))
        elif difference.field.startswith("memory:"):
            names.update(_memory_fields(spec, difference))
        else:
            names.add(difference.field)
    return sorted(names)


def _flag_fields(prefix: str, difference: Difference) -> list[str]:
    assert isinstance(difference.expected, int)
    assert isinstance(difference.observed, int)
    changed = difference.expected ^ difference.observed
    return [f"{prefix}.{name}" for name, bit in FLAG_NAMES.items() if changed & bit] or [prefix]


def _memory_fields(spec: Step, difference: Difference) -> list[str]:
    region, offset = difference.field.removeprefix("memory:").rsplit("+", 1)
    if spec.delivered:
        last = spec.delivered[-1]
        base = spec.registers[REGISTER_INDEX["rsp"]] & 0xFFF
        word = ((int(offset, 16) & 0xFFF) - base) // 8 - (1 if last.error_code is not None else 0)
        if word == -1 and last.error_code is not None:
            return ["frame.error_code"]
        if 0 <= word < len(_FRAME_WORDS):
            name = f"frame.{_FRAME_WORDS[word]}"
            return _flag_fields(name, difference) if word == 2 else [name]
    return [f"memory:{region}"]


def _rule(decoded: Decoded | None, spec: Step, asynchronous: bool, fields: tuple[str, ...]) -> str:
    """The rule that decides: the one that a fault names, or what the manual says of the instruction."""
    if spec.raised:
        return spec.rule
    if asynchronous or decoded is None:
        return "SDM Vol. 3A, 7.14 and Table 7-2: delivery of events through the IDT, and their priorities"
    if fields == RESUME_ONLY:
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
_PREFIXES = frozenset(bytes.fromhex("66 67 f2 f3 2e 36 3e 26 64 65 f0")) | frozenset(range(0x40, 0x50))


def _has_prefix(code: bytes, prefix: int) -> bool:
    return prefix in itertools.takewhile(_PREFIXES.__contains__, code)


def instruction_name(decoded: Decoded, before: Step, code: bytes) -> str:
    """An instruction as far as it matters for a cause: mnemonic, operand size of stack forms, special registers, the MSR."""
    if decoded.is_invalid:
        return "LOCK where it is not allowed" if _has_prefix(code, 0xF0) else "undefined encoding"
    name = NAMES[decoded.mnemonic]
    if decoded.flow_control in _NEAR_BRANCHES and decoded.mnemonic not in _FAR_RETURNS and _has_prefix(code, 0x66):
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
_ADAPTERS_OWN = (Mnemonic.SYSCALL, Mnemonic.SYSENTER, Mnemonic.INT, Mnemonic.INT3)


def _by(core: Core, decoded: Decoded | None, spec: Step, other: Step) -> str:
    """Whose step it was. The engine executed it unless an event was delivered, or the adapter stands in for the instruction."""
    if core.delivers_events:
        return "engine"
    ours = decoded is not None and decoded.mnemonic in _ADAPTERS_OWN and spec.raised == other.raised
    if spec.asynchronous and not other.delivered and all(entry.vector == 1 for entry in spec.delivered):
        return "engine"  # a single-step trap: the engine raises those itself
    delivery = (spec.asynchronous or other.asynchronous or bool(spec.delivered)) and spec.raised == other.raised
    return "adapter" if ours or delivery else "engine"
