"""Why two runs differ: the first step at which they part, the instruction there, and the rule that decides.

Both sides run one boundary at a time (`alignment` puts their steps beside each other). What the step did on each side makes the
signature, so that all cases with one cause come together, whatever their values.
"""

from __future__ import annotations

from dataclasses import dataclass

from iced_x86 import Decoder, DecoderError, DecoderOptions, Formatter, FormatterSyntax
from iced_x86 import Instruction as Decoded

from fuzzer.alignment import beside
from fuzzer.compare import Difference, state_differences
from fuzzer.cores.core import Core
from fuzzer.signature import Parting, Signature, sign
from fuzzer.view import linear_bytes
from reference.decode import LONGEST
from reference.image import REGISTER_INDEX, End, Image, Step

_RIP = REGISTER_INDEX["rip"]
_CR3 = REGISTER_INDEX["cr3"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where and how a core leaves the specification, and the signature of the cause."""

    step: int
    """Boundaries on which both sides agree."""
    address: int
    code: bytes
    text: str
    """The instruction at the parting, disassembled; `deliver` where an event from outside was."""
    differences: tuple[Difference, ...]
    signature: Signature


def explain(image: Image, core: Core) -> Explanation | None:
    """Run both sides in step until they part; None if they never do."""
    before: Step | None = None
    for number, (spec, other) in enumerate(beside(image, core)):
        differences = step_differences(image, spec, other)
        if differences:
            return _explanation(image, core, number, before or spec, spec, other, differences)
        if spec.end is End.NOT_MODELLED:
            return None
        before = spec
    return None


def step_differences(image: Image, spec: Step, other: Step) -> tuple[Difference, ...]:
    """What two runs show differently at one step; nothing where one of them has left what can be compared."""
    if spec.end is End.NOT_MODELLED or other.end is End.UNSUPPORTED:
        return ()
    found: list[Difference] = []
    if not other.unseen:
        found, _ = state_differences(image, spec.registers, spec.memory, other.registers, other.memory, spec.undefined)
    if spec.end is not other.end:
        found.insert(0, Difference("end", _end_name(spec), _end_name(other)))
    return tuple(found)


def _end_name(step: Step) -> str:
    return step.end.value if step.end else "running"


def _explanation(
    image: Image, core: Core, number: int, before: Step, spec: Step, other: Step, differences: tuple[Difference, ...]
) -> Explanation:
    address = before.registers[_RIP]
    code = linear_bytes(image, before.memory, before.registers[_CR3], address, LONGEST)
    decoded = _decode(code, before.code_bits, address, image.profile.vendor == "amd") if code else None
    parting = Parting(before, spec, other, code, decoded, differences)
    text = "deliver" if parting.asynchronous else _text(decoded)
    signature = sign(image.profile.name, core, parting)
    return Explanation(number - 1, address, code[: decoded.len] if decoded else b"", text, differences, signature)


def _decode(code: bytes, bits: int, address: int, amd: bool) -> Decoded:
    """The instruction that stands there, also where the next page cannot be read: zeros stand in for what is missing."""
    options = DecoderOptions.AMD if amd else DecoderOptions.NONE
    decoder = Decoder(bits, code, options, ip=address)
    decoded = decoder.decode()
    return (
        Decoder(bits, code.ljust(LONGEST, b"\0"), options, ip=address).decode()
        if decoder.last_error == DecoderError.NO_MORE_BYTES
        else decoded
    )


def _text(decoded: Decoded | None) -> str:
    return Formatter(FormatterSyntax.INTEL).format(decoded) if decoded else "fetch"
