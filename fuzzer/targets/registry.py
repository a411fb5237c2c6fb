"""The targets by name, in the order that case bytes number them: append, never reorder."""

from __future__ import annotations

from fuzzer.targets import snippets
from fuzzer.targets.linux4 import target as linux4
from fuzzer.targets.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (linux4.TARGET, snippets.TARGET)}
