"""`python -m fuzzer.guided.selftest`: whether libFuzzer heeds counters of ours and a mutator of ours; exit 0 if it does.

Neither the counters' way in nor the order in which the parts of atheris have to be loaded is a promised interface, and where one of them
fails guided fuzzing goes on and is blind. So a secret of four bytes has to be found that nobody finds without: one byte is right in a
thousand tries if every right byte is kept, and all four in none of some thousand million.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from random import Random
from typing import Final, NoReturn

from fuzzer.guided.counters import Counters

SECRET: Final = b"\x9d\x4e\x11\xc3"
TRIES: Final = 200_000


def main(counted: bool = True) -> NoReturn:
    """Look for the secret and leave: 0 found, 1 not found."""
    atheris = import_module("atheris")
    tries = 0
    counters: Counters | None = None

    def one(data: bytes) -> None:
        nonlocal tries
        tries += 1
        right = next((n for n, (byte, wanted) in enumerate(zip(data, SECRET, strict=False)) if byte != wanted), min(len(data), len(SECRET)))
        if right == len(SECRET) or tries > TRIES:
            os._exit(0 if right == len(SECRET) else 1)
        if counters is not None:
            counters.count(range(right))

    arguments = [sys.argv[0], "-seed=1", f"-max_len={len(SECRET)}", "-len_control=0", "-verbosity=0"]
    atheris.Setup(arguments, one, custom_mutator=_mutated, custom_crossover=_crossed)
    counters = Counters(64) if counted else None
    with contextlib.suppress(SystemExit):
        atheris.Fuzz()
    os._exit(1)


def _mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """One byte another one; of a length that libFuzzer would not come to think of by itself."""
    rng = Random(seed)
    changed = bytearray(data.ljust(len(SECRET), b"\0")[: len(SECRET)])
    changed[rng.randrange(len(SECRET))] = rng.randrange(256)
    return bytes(changed)


def _crossed(one: bytes, other: bytes, max_size: int, seed: int) -> bytes:
    return _mutated(one, max_size, seed)


if __name__ == "__main__":
    main(counted="--without-counters" not in sys.argv)
