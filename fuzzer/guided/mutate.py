"""What libFuzzer asks for: bytes that differ a little from bytes, and bytes between two. Both know what a case is.

Whatever comes in, what comes out are the bytes of a canonical case of the scope; the same arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final, TypeVar

from fuzzer.case import MAX_EVENTS, Case, canonical, encode
from fuzzer.guided.changes import changes
from fuzzer.guided.scope import Scope
from fuzzer.guided.splice import code, instructions, with_instructions

TRIES: Final = 5
CHANGED_INSTEAD: Final = 0.7
_T = TypeVar("_T")


def mutated(data: bytes, max_size: int, seed: int, scope: Scope) -> bytes:
    """The case with one to three changes; some changes change nothing, so they are tried again."""
    rng = Random(seed)
    table = changes(scope.target)
    old = scope.read(data)
    for _ in range(TRIES):
        case = old
        for change in rng.choices([change for _, change in table], [weight for weight, _ in table], k=rng.choice((1, 1, 1, 2, 3))):
            case = canonical(change(rng, case, scope))
        if case != old:
            break
    return fitting(case, max_size)


def crossed(one: bytes, other: bytes, max_size: int, seed: int, scope: Scope) -> bytes:
    """A case that has something of both: each register, each piece of memory and each event of one or the other.

    libFuzzer asks for this as often as for a change, which is too often: mostly it gets a change of `one`.
    """
    rng = Random(seed)
    if rng.random() < CHANGED_INSTEAD:
        return mutated(one, max_size, rng.getrandbits(32), scope)
    mine, theirs = scope.read(one), scope.read(other)
    if scope.target == "snippets":
        return fitting(canonical(_joined(rng, mine, theirs)), max_size)
    return fitting(
        canonical(
            replace(
                rng.choice((mine, theirs)),
                registers=_some(rng, (*mine.registers, *theirs.registers)),
                memory=_some(rng, (*mine.memory, *theirs.memory)),
                events=_some(rng, (*mine.events, *theirs.events))[:MAX_EVENTS],
            )
        ),
        max_size,
    )


def _some(rng: Random, pieces: Sequence[_T]) -> tuple[_T, ...]:
    return tuple(piece for piece in pieces if rng.random() < 0.5)


def _joined(rng: Random, mine: Case, theirs: Case) -> Case:
    """The beginning of one snippet and the end of the other: what one needs comes whole, or its instructions fault at once."""
    own, other = instructions(mine), instructions(theirs)
    parts = own[: rng.randrange(len(own) + 1)] + other[rng.randrange(len(other) + 1) :]
    their_code = code(theirs)
    registers = tuple(pair for pair in theirs.registers if pair[0] != "rip" and rng.random() < 0.7)
    memory = tuple(piece for piece in theirs.memory if piece is not their_code)
    return replace(
        with_instructions(replace(mine, registers=(*mine.registers, *registers), memory=(*mine.memory, *memory)), parts),
        events=_some(rng, (*mine.events, *theirs.events))[:MAX_EVENTS],
    )


def fitting(case: Case, max_size: int) -> bytes:
    """The bytes of a case, without the first pieces of its memory where they are too many for `max_size` (at least 3)."""
    data = encode(case)
    while len(data) > max_size and case.memory:
        case = canonical(replace(case, memory=case.memory[1:]))
        data = encode(case)
    while len(data) > max_size:
        case = replace(case, registers=case.registers[1:], events=case.events if case.registers else case.events[1:])
        data = encode(case)
    return data
