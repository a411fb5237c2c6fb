"""From the step at which two runs part to the signature of its cause."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from iced_x86 import CodeSize, Mnemonic
from iced_x86 import Instruction as Decoded

from fuzzer.compare import Difference
from fuzzer.cores.core import Core
from fuzzer.naming import FAR_RETURNS, has_ignored_prefix, instruction_name, is_wide_far_pointer
from fuzzer.outcome import CRASHES, field_names, outcome, with_delivery
from fuzzer.targets.tables import FRAMES
from reference.bits import BS
from reference.image import REGISTER_INDEX, End, Step
from reference.instructions import lookup
from reference.instructions.table32 import lookup32

GENERIC_RULES = ("SDM Vol. 1, 3.3.7.1", "SDM Vol. 3A, 5.6", "SDM Vol. 3A, 5.7", "SDM Vol. 3A, 7.15")
"""Rules about any access to memory: the instruction that made the access is not the cause."""

_SEVERAL_ACCESSES = (*FAR_RETURNS, Mnemonic.LSS, Mnemonic.LFS, Mnemonic.LGS, Mnemonic.ENTER)
"""Instructions that say themselves how wide their accesses are, how many, and with which rights; far calls and jumps are others."""

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
    elif _is_behind_double_fault(parting):
        expected = observed = with_delivery(parting.spec)
    same = expected == observed
    fields = tuple(field_names(parting.spec, parting.differences)) if same else ()
    cause, rule = _cause(parting, fields), _rule(parting, fields)
    if parting.asynchronous and parting.other.held_by_engine:
        observed, rule = "holds it back", _SHADOW_RULE
    elif parting.other.at_fetch and not parting.spec.at_fetch and not same:
        expected, rule = "no fault at the fetch", _FETCH_RULE
    elif observed.startswith("#PF") and not parting.asynchronous and expected != "#UD" and not same:
        expected, rule = expected if expected.startswith("#PF") else "no #PF", _ACCESS_RULE
    elif expected == "#UD" and not same:
        observed = "no #UD"
    return Signature(
        core=core.name,
        profile=profile,
        kind=_kind(parting.other),
        area=_area(parting, same),
        cause=cause,
        rule=rule,
        fields=fields,
        expected=expected,
        observed=observed,
        by=_by(core, parting, fields),
    )


def _is_behind_double_fault(parting: Parting) -> bool:
    """Both sides delivered #DF, and the other is an engine that delivers by itself, of which no more is to be seen than that."""
    kept = [[(entry.vector, entry.error_code) for entry in side.delivered] for side in (parting.spec, parting.other)]
    return kept[0] == kept[1] and parting.other.raised.startswith("#DF") and bool(parting.spec.raised)


def _cause(parting: Parting, fields: tuple[str, ...]) -> str:
    """The instruction or delivery step; what any instruction would have met is not put down to the one that met it."""
    decoded = parting.decoded
    if parting.asynchronous:
        return "event held back" if parting.other.held_by_engine else "event delivery"
    if _is_resume_only(parting, fields):
        return "RF after an instruction"
    if decoded is not None and (decoded.is_invalid or has_ignored_prefix(decoded, parting.code)):
        return instruction_name(decoded, parting.before, parting.code)
    if decoded is None or parting.spec.at_fetch or parting.other.at_fetch:
        return "instruction fetch"
    own = decoded.mnemonic in _SEVERAL_ACCESSES or decoded.is_call_far_indirect or decoded.is_jmp_far_indirect
    if parting.spec.raised and parting.spec.rule.startswith(GENERIC_RULES) and set(fields) <= {"cr2"} and not own:
        return "memory access"
    return instruction_name(decoded, parting.before, parting.code)


def _is_resume_only(parting: Parting, fields: tuple[str, ...]) -> bool:
    """RF is left set by an instruction that has no say in it."""
    return fields == RESUME_ONLY and (parting.decoded is None or parting.decoded.mnemonic not in FAR_RETURNS)


def of_crash(core: str, profile: str, end: End) -> Signature:
    """The signature of a case that took the engine's process with it, or never came back: no step of it can be told."""
    kind = CRASHES[end]
    return Signature(core, profile, kind, "other", "the whole case", "an emulator survives any guest", (), "an end", kind, "engine")


def of_parting_unseen(core: str, profile: str, differences: tuple[Difference, ...]) -> Signature:
    """The signature of a difference at the end that does not come up when both sides run boundary by boundary."""
    fields = tuple(sorted({difference.field.split(":")[0] for difference in differences}))
    rule = "SDM Vol. 1, 3.4.3: the flags and registers of an instruction do not depend on how many are run at a time"
    area = _area_of(differences)
    return Signature(core, profile, "divergence", area, "running many at once", rule, fields, "the same state", "another", "engine")


def _kind(other: Step) -> str:
    return "crash" if other.end in CRASHES else "divergence"


def _area(parting: Parting, same: bool) -> str:
    """Where the two do different things, `gs` is the area only if it was the core that changed GS."""
    if same:
        return _area_of(parting.differences)
    places = [REGISTER_INDEX[name] for name in _AREA_FIELDS["gs"]]
    return "gs" if any(parting.other.registers[place] != parting.before.registers[place] for place in places) else "fault"


def _area_of(differences: Iterable[Difference]) -> str:
    names = {difference.field for difference in differences}
    if names & set(_AREA_FIELDS["gs"]):
        return "gs"
    for area in ("stack", "flags", "control"):
        if names & set(_AREA_FIELDS[area]):
            return area
    return "stack" if any(name.startswith(_STACKS) for name in names) else "other"


def _rule(parting: Parting, fields: tuple[str, ...]) -> str:
    """The rule that decides: the one that a fault names, or what the manual says of the instruction."""
    if parting.decoded is not None and is_wide_far_pointer(parting.decoded, parting.code):
        return _POINTER_RULE
    if parting.spec.raised:
        return parting.spec.rule
    if parting.asynchronous or parting.decoded is None:
        return "SDM Vol. 3A, 7.14 and Table 7-2: delivery of events through the IDT, and their priorities"
    if _is_resume_only(parting, fields):
        return "SDM Vol. 3B, 18.3.1.1: the processor clears RF after the successful execution of an instruction, IRET excepted"
    function, _ = (lookup32 if parting.decoded.code_size == CodeSize.CODE32 else lookup)(parting.decoded)
    return " ".join((function.__doc__ or "").split())


_SHADOW_RULE = "SDM Vol. 2B, STI and Vol. 3A, 7.8.3: only an STI that sets IF and a load of SS hold events, for one instruction"
_POINTER_RULE = "SDM Vol. 2A, LDS/LES/LFS/LGS/LSS, CALL and JMP: REX.W makes the offset 64 bits wide; APM Vol. 3: it stays 32 bits wide"
_ACCESS_RULE = "SDM Vol. 3A, 5.6.1 and 5.7: which accesses to memory fault, and with which error code"
_FETCH_RULE = "SDM Vol. 1, 3.3.7.1: only a fetch that leaves the canonical addresses faults, and no byte of this instruction does"
_DEBUG = 1
_ADAPTER_WRITES = ("memory:gdt", "memory:ldt", "memory:page_tables")
"""What a delivery writes besides its frame: accessed and dirty flags."""
_ADAPTERS_OWN = (Mnemonic.SYSCALL, Mnemonic.SYSENTER, Mnemonic.INT, Mnemonic.INT3)


def _steps(parting: Parting) -> bool:
    """Whether the event that was due is a single-step trap, however its delivery went, and the core noted none."""
    before, spec, other = (step.registers[REGISTER_INDEX["dr6"]] & BS for step in (parting.before, parting.spec, parting.other))
    return not before and not other and bool(spec)


def _by(core: Core, parting: Parting, fields: tuple[str, ...]) -> str:
    """Whose step it was. The engine executed it unless an event was delivered, or the adapter stands in for the instruction."""
    spec, other, decoded = parting.spec, parting.other, parting.decoded
    due, seen = ({entry.vector for entry in step.delivered} for step in (spec, other))
    reports = bool(fields) and set(fields) <= {"cr2", "dr6"} and (other.raised or _DEBUG in seen)
    elsewhere = spec.raised and fields and all(name.startswith("memory:") and name not in _ADAPTER_WRITES for name in fields)
    lost_trap = spec.asynchronous and _DEBUG not in seen and (due == {_DEBUG} or _steps(parting))
    if core.delivers_events or other.held_by_engine or reports or elsewhere or lost_trap:
        return "engine"  # what it raises, reports and holds back is its own
    ours = decoded is not None and decoded.mnemonic in _ADAPTERS_OWN
    delivery = spec.asynchronous or other.asynchronous or bool(spec.delivered)
    return "adapter" if (ours or delivery) and spec.raised == other.raised else "engine"
