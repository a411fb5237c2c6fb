"""The targets by name: those that entryfuzz brings, in the order that case bytes number them, and people's own.

Case bytes name a target by one byte. Ours count from 0: append, never reorder. Somebody's own target has a number from 0x80 on that
follows from its name alone, so that stored cases mean the same whichever other targets are there.
"""

from __future__ import annotations

import hashlib
from typing import Final

from fuzzer.targets import snippets
from fuzzer.targets.linux4 import target as linux4
from fuzzer.targets.target import Target

BUILT_IN: Final = (linux4.TARGET.name, snippets.TARGET.name)
TARGETS: dict[str, Target] = {target.name: target for target in (linux4.TARGET, snippets.TARGET)}
_OWN: Final = 0x80


def number(name: str) -> int:
    """The byte that stands for a target."""
    return BUILT_IN.index(name) if name in BUILT_IN else _OWN | hashlib.sha256(name.encode()).digest()[0]


def numbered(byte: int) -> str:
    """The target that a byte stands for; one of ours, modulo their number, where it is nobody's own."""
    own = (name for name in TARGETS if name not in BUILT_IN and number(name) == byte)
    return next(own, BUILT_IN[byte % len(BUILT_IN)])


def clash(name: str) -> str | None:
    """The target that `name` cannot stand beside: one of ours of that name, or somebody's own of the same number."""
    if name in BUILT_IN:
        return name
    return next((other for other in TARGETS if other != name and number(other) == number(name)), None)


def own() -> tuple[Target, ...]:
    """The targets that this process was told about: another process has to be told about them too."""
    return tuple(target for name, target in TARGETS.items() if name not in BUILT_IN)


def register(target: Target) -> None:
    """Make somebody's own target known to this process; it must not clash."""
    assert clash(target.name) is None, target.name
    TARGETS[target.name] = target
