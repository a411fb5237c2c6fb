"""How many boundaries lie behind a list of instructions that the engine began."""

from __future__ import annotations

from collections.abc import Iterator
from operator import eq

from fuzzer.cores.unicorn.inspector import Inspector, begins_again, repeats


class UncountableError(Exception):
    """The engine's passes over a repeated instruction do not tell how often it ran."""


def count_retired(addresses: tuple[int, ...], last: int, rip: int, inspector: Inspector, exact: bool) -> int:
    """Instructions begun, less the passes that only found RCX to be 0; `last` is the one begun before, `rip` where the engine stands.

    The engine begins a repeated string instruction once more after its last iteration, to leave it; not where it stands in
    a shadow, and then its iterations cannot be told from its passes: UncountableError, if the count must be `exact`. It also
    begins an instruction again that changed code it had translated together with it.
    """
    passes = 0
    begun = (last, *addresses)
    for first, length in _runs(begun):
        address, behind = begun[first], first + length
        decoded = inspector.instruction(address)
        if begins_again(decoded):
            passes += length - 1
        elif (behind < len(begun) or rip != address) and repeats(decoded):
            passes += 1
            before = begun[first - 1] if first else last
            if exact and before >= 0 and inspector.opens_shadow(before):
                raise UncountableError
    return len(addresses) - passes


def _runs(addresses: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(index, length) of every run of equal neighbours; searched for in C, as most lists have hundreds of items and hardly a run."""
    same = [*map(eq, addresses, addresses[1:]), False]
    runs = same.count(True)
    first = 0
    while runs:
        first = same.index(True, first)
        last = same.index(False, first)
        yield first, last - first + 1
        runs -= last - first
        first = last
