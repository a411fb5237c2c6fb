"""Comparing two observations of one case: everything, tolerating only what is named in `tolerances`."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import ne

from fuzzer.targets.tables import FRAMES
from fuzzer.tolerances import ACCESSED_FLAGS, OTHER_BREAKPOINTS, UNDEFINED_FLAGS
from reference.image import PAGE, REGISTERS, End, Image, Observation, Undefined

INCOMPARABLE = frozenset({End.NOT_MODELLED, End.UNSUPPORTED})
"""Ends that say nothing about right or wrong."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that two observations disagree on: `end`, a register, or a word of memory as `memory:region+0xoffset`."""

    field: str
    expected: int | str
    observed: int | str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What remains after the tolerances, and which of them were needed."""

    differences: tuple[Difference, ...] = ()
    tolerated: tuple[str, ...] = ()
    comparable: bool = True


_ACCESSED = 1 << 5
EQUAL = Comparison()
INCOMPARABLE_RESULT = Comparison(comparable=False)


def compare(image: Image, spec: Observation, core: Observation) -> Comparison:
    """Compare a core's observation of `image` with the specification's."""
    if spec.end in INCOMPARABLE or core.end in INCOMPARABLE:
        return INCOMPARABLE_RESULT
    if spec.end is not core.end:
        ends = Difference("end", spec.end.value, core.end.value)
        return Comparison((ends, *_state(image, spec, core)[0]))
    if spec.end is End.DID_NOT_END or (spec.registers == core.registers and spec.memory == core.memory):
        return EQUAL
    differences, tolerated = _state(image, spec, core)
    return Comparison(tuple(differences), tuple(tolerated))


def _state(image: Image, spec: Observation, core: Observation) -> tuple[list[Difference], list[str]]:
    if not core.registers:
        return [], []
    return state_differences(image, spec.registers, spec.memory, core.registers, core.memory, spec.undefined)


def state_differences(
    image: Image,
    registers: tuple[int, ...],
    memory: Mapping[int, bytes],
    other_registers: tuple[int, ...],
    other_memory: Mapping[int, bytes],
    undefined: Undefined,
) -> tuple[list[Difference], list[str]]:
    """Registers and memory words that differ, and the tolerances that hid some: the specification's first."""
    differences: list[Difference] = []
    tolerated: list[str] = []
    for name, expected, observed in zip(REGISTERS, registers, other_registers, strict=True):
        if expected != observed:
            if name == "rflags" and not (expected ^ observed) & ~undefined.rflags:
                tolerated.append(UNDEFINED_FLAGS.id)
            elif name == "dr6" and not (expected ^ observed) & ~undefined.dr6:
                tolerated.append(OTHER_BREAKPOINTS.id)
            else:
                differences.append(Difference(name, expected, observed))
    for address, expected, observed in _words(image, memory, other_memory):
        place = place_of(address)
        if observed == expected | _ACCESSED and place.startswith("page_tables+"):
            tolerated.append(ACCESSED_FLAGS.id)
        elif (expected ^ observed) & ~undefined.words.get(address, 0):
            differences.append(Difference(f"memory:{place}", expected, observed))
        else:
            tolerated.append(UNDEFINED_FLAGS.id)
    return differences, tolerated


def _words(image: Image, one: Mapping[int, bytes], other: Mapping[int, bytes]) -> Iterator[tuple[int, int, int]]:
    """(physical address, word, word) wherever two sets of changed pages differ; what is not in a set is as in the image."""
    for frame in sorted(one.keys() | other.keys()):
        a, b = one.get(frame, image.pages[frame]), other.get(frame, image.pages[frame])
        if a != b:
            words, others = _QWORDS.unpack(a), _QWORDS.unpack(b)
            yield from ((frame * PAGE + 8 * n, words[n], others[n]) for n in compress(_WORDS, map(ne, words, others)))


_QWORDS = struct.Struct("<512Q")
_WORDS = range(PAGE // 8)
_STARTS = sorted((first, name) for name, first in FRAMES.items())
_FIRST_FRAMES = [first for first, _ in _STARTS]


def place_of(physical: int) -> str:
    """`region+0xoffset` of a physical address."""
    first, name = _STARTS[bisect_right(_FIRST_FRAMES, physical >> 12) - 1]
    return f"{name}+{physical - (first << 12):#x}"
