"""Cutting snippets at the borders of their instructions, and joining the pieces."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from iced_x86 import Decoder

from fuzzer.case import MAX_PATCH_BYTES, Case
from fuzzer.targets.snippets import CODE_REGIONS, END
from fuzzer.targets.target import Patch

MOST: Final = 12
"""Instructions of a snippet: more only repeat what fewer show."""


def spliced(rng: Random, case: Case, other: Case) -> Case:
    """A case with one instruction less or one doubled, or with some of `other`'s, and the registers and memory that those need."""
    own = instructions(case)
    kind = rng.randrange(4)
    if kind == 0 and len(own) > 1:
        place = rng.randrange(len(own))
        return with_instructions(case, own[:place] + own[place + 1 :])
    if kind == 1 and own:
        place = rng.randrange(len(own))
        return with_instructions(case, own[:place] + own[place : place + 1] + own[place:])
    theirs = instructions(other)
    first = rng.randrange(len(theirs) + 1)
    piece = theirs[first : first + rng.randrange(1, 4)]
    place = rng.randrange(len(own) + 1)
    joined = with_instructions(case, own[:place] + piece + own[place + (kind == 2) :])
    return _needing(joined, other)


def _needing(case: Case, other: Case) -> Case:
    """The case with what `other` sets besides its code."""
    region = CODE_REGIONS[other.scenario].name
    registers = tuple(pair for pair in other.registers if pair[0] != "rip")
    return replace(
        case,
        registers=(*case.registers, *registers),
        memory=(*case.memory, *(piece for piece in other.memory if piece.region != region)),
    )


def code(case: Case) -> Patch | None:
    """Where a snippet's instructions stand; None if it has none of its own."""
    region = CODE_REGIONS[case.scenario]
    start = dict(case.registers).get("rip", region.start) - region.start
    return next((piece for piece in case.memory if piece.region == region.name and piece.offset == start), None)


def instructions(case: Case) -> list[bytes]:
    """A snippet's instructions, without the one that ends it; bytes that are no instruction are one."""
    piece = code(case)
    if piece is None:
        return []
    data = piece.data.removesuffix(END)
    decoder, found = Decoder(64, data), []
    while decoder.can_decode:
        start = decoder.position
        decoder.decode()
        found.append(data[start : decoder.position])
    return found


def with_instructions(case: Case, parts: list[bytes]) -> Case:
    """A snippet with other instructions and the one that ends it."""
    room = MAX_PATCH_BYTES - len(END)
    kept = b""
    for part in parts[:MOST]:
        if len(kept) + len(part) <= room:
            kept += part
    region, old = CODE_REGIONS[case.scenario], code(case)
    data = kept + END
    offset = min(old.offset if old else 0, region.size - len(data))
    memory = tuple(piece for piece in case.memory if piece is not old)
    return replace(case, memory=(*memory, Patch(region.name, offset, data)), registers=(*case.registers, ("rip", region.start + offset)))
