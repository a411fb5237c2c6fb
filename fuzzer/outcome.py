"""What a step did and what it left different, in words without values: the material of signatures."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fuzzer.compare import Difference
from reference.bits import FLAG_NAMES, VM
from reference.faults import exception_name
from reference.image import REGISTER_INDEX, Delivery, End, Step

_FRAME_WORDS = ("rip", "cs", "rflags", "rsp", "ss")
CRASHES = {End.CORE_ERROR: "core-error", End.CORE_CRASHED: "crash", End.CORE_HUNG: "hang"}


def outcome(step: Step) -> str:
    """What a step did: `completes`, the exception that was met first, an event, or the end that it came to."""
    if step.end in CRASHES:
        return re.sub(r"0x[0-9a-f]+", "…", step.detail) or CRASHES[step.end]
    if step.raised:
        return _normal(step.raised)
    delivered = ", ".join(_delivered(entry) for entry in step.delivered)
    if step.end is not None and step.end is not End.ENDED:
        return delivered or step.end.value
    return f"delivers {delivered}" if delivered else "completes"


def with_delivery(step: Step) -> str:
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


def field_names(spec: Step, differences: Iterable[Difference]) -> list[str]:
    """The differing fields without values: flags by name, words of a pushed frame by their place in it, other memory by region."""
    names: set[str] = set()
    for difference in differences:
        if difference.field == "rflags":
            names.update(_flag_fields("rflags", difference, spec.undefined.rflags))
        elif difference.field.startswith("memory:"):
            names.update(_memory_fields(spec, difference))
        else:
            names.add(difference.field)
    return sorted(names)


def _flag_fields(prefix: str, difference: Difference, undefined: int = 0) -> list[str]:
    assert isinstance(difference.expected, int)
    assert isinstance(difference.observed, int)
    changed = (difference.expected ^ difference.observed) & ~undefined
    # Several flags may differ for several reasons at once: the first is the one that this case counts for, and VM explains the others.
    names = sorted(FLAG_NAMES.items(), key=lambda item: item[1] != VM)
    return next(([f"{prefix}.{name}"] for name, bit in names if changed & bit), [prefix])


def _memory_fields(spec: Step, difference: Difference) -> list[str]:
    region, offset = difference.field.removeprefix("memory:").rsplit("+", 1)
    if spec.delivered:
        last = spec.delivered[-1]
        base = (last.frame or spec.registers[REGISTER_INDEX["rsp"]]) & 0xFFF
        word = ((int(offset, 16) & 0xFFF) - base) // 8 - (1 if last.error_code is not None else 0)
        if word == -1 and last.error_code is not None:
            return ["frame.error_code"]
        if 0 <= word < len(_FRAME_WORDS):
            name = f"frame.{_FRAME_WORDS[word]}"
            return _flag_fields(name, difference) if word == 2 else [name]
    return [f"memory:{region}"]
