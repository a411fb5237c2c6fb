"""From (seed, target, profiles, number) to a case: the same on any machine, in any process, in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from fuzzer.case import Case
from fuzzer.generate import linux4, snippets

GENERATORS: Final[dict[str, Callable[[Random, str], Case]]] = {"linux4": linux4.generate, "snippets": snippets.generate}


def generate(seed: int, target: str, profiles: Sequence[str], number: int) -> Case:
    """Case `number` of a campaign's target; profiles take turns."""
    material = f"{seed}/{target}/{number}".encode()
    rng = Random(int.from_bytes(hashlib.sha256(material).digest()[:8], "little"))
    return GENERATORS[target](rng, profiles[number % len(profiles)])
