"""Cases for the tests of the silicon core, and the core itself where this host lets it run."""

from __future__ import annotations

from functools import cache

import pytest

from fuzzer.build import build
from fuzzer.case import Case, canonical
from fuzzer.cores.silicon.core import SiliconCore
from fuzzer.cores.silicon.event import FirstEvent
from fuzzer.cores.silicon.host import HostImage
from fuzzer.cores.silicon.probe import available
from fuzzer.silicon_check import generated
from fuzzer.targets import layout
from fuzzer.targets.target import patch


@cache
def silicon() -> SiliconCore:
    """The core; a test that needs it is skipped where the host cannot be asked: no package would bring another processor."""
    version, reason = available()
    if version is None:
        pytest.skip(f"silicon: {reason}")
    return SiliconCore()


def fitted(case: Case) -> HostImage:
    image = silicon().host.fit(build(case))
    assert isinstance(image, HostImage), image
    return image


def snippet(code: str, data: bytes = b"", **registers: int) -> Case:
    """Instructions in user mode that end by the ending interrupt; `data` stands at USER_DATA + 0x100."""
    placed = patch(layout.USER_CODE, 0, bytes.fromhex(code) + b"\xcd\xf1")
    pairs = tuple({"rip": layout.USER_CODE.start, **registers}.items())
    memory = (placed, patch(layout.USER_DATA, 0x100, data)) if data else (placed,)
    return canonical(Case("snippets", "user", silicon().profile.name, pairs, memory))


def asked(code: str, data: bytes = b"", **registers: int) -> FirstEvent:
    """What the processor says of a snippet."""
    return next(silicon().first([fitted(snippet(code, data, **registers))]))


def many(seed: int, count: int) -> list[HostImage]:
    """Generated cases."""
    return [fitted(generated(seed, number, silicon().profile.name)) for number in range(count)]
