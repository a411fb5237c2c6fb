"""How many boundaries lie behind a list of instructions that the engine began."""

from __future__ import annotations

from itertools import groupby, islice
from operator import eq

from fuzzer.cores.unicorn.inspector import Inspector


class UncountableError(Exception):
    """The engine's passes over a repeated instruction do not tell how often it ran."""


def count_retired(addresses: tuple[int, ...], last: int, rip: int, inspector: Inspector, exact: bool) -> int:
    """Instructions begun, less the passes that only found RCX to be 0; `last` is the one begun before, `rip` where the engine stands.

    The engine begins a repeated string instruction once more after its last iteration, to leave it; not where it stands in
    a shadow, and then its iterations cannot be told from its passes: UncountableError, if the count must be `exact`. It also
    begins an instruction again that changed code it had translated together with it.
    """
    if last != addresses[0] and not any(map(eq, addresses, islice(addresses, 1, None))):
        return len(addresses)
    before, passes, begun = last, 0, 0
    for address, group in groupby(addresses):
        length = sum(1 for _ in group)
        begun += length
        if begun == length and address == last:
            length += 1
        if length > 1:
            if inspector.begins_again(address):
                passes += length - 1
            elif (begun < len(addresses) or rip != address) and inspector.repeats(address):
                passes += 1
                if exact and before >= 0 and inspector.opens_shadow(before):
                    raise UncountableError
        before = address
    return len(addresses) - passes
