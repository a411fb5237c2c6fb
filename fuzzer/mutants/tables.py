"""Changing what the processor reads around the entry code: gates, descriptors, the TSS, per-CPU words and registers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from fuzzer.build import patched
from fuzzer.targets import layout
from fuzzer.targets.linux4 import image
from fuzzer.targets.tables import FRAMES
from fuzzer.targets.target import Scenario, Target, default_registers, patch
from reference.bits import MASK64
from reference.profiles import PROFILES


class Change(Protocol):
    """One thing that a mutant has different."""

    def apply(self, target: Target) -> Target:
        """The target with it."""
        ...

    def words(self, target: Target) -> str:
        """What is different, for people."""
        ...


GATE_FIELDS: Final = {"ist": (32, 3), "type": (40, 4), "dpl": (45, 2)}
"""First bit and width of a gate's fields (SDM Vol. 3A, Figure 7-8)."""
TSS_FIELDS: Final = {"rsp0": 0x04, **{f"ist{slot}": 0x24 + 8 * (slot - 1) for slot in range(1, 8)}}
"""Offsets in the 64-bit TSS (SDM Vol. 3A, Figure 8-11)."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A field of an interrupt gate with another value."""

    vector: int
    field: str
    value: int

    def apply(self, target: Target) -> Target:
        """The target with that gate."""
        shift, width = GATE_FIELDS[self.field]
        return _with_word(target, layout.IDT, 16 * self.vector, lambda old: old & ~((1 << width) - 1 << shift) | self.value << shift)

    def words(self, target: Target) -> str:
        """What is different, for people."""
        return f"gate {self.vector:#x}: {self.field} becomes {self.value:#x}"


@dataclass(frozen=True, slots=True)
class Tss:
    """A stack pointer of the TSS that is off by `delta` bytes."""

    field: str
    delta: int

    def apply(self, target: Target) -> Target:
        """The target with that TSS."""
        return _with_word(target, layout.PERCPU, layout.TSS_OFFSET + TSS_FIELDS[self.field], lambda old: old + self.delta)

    def words(self, target: Target) -> str:
        """What is different, for people."""
        return f"TSS: {self.field} off by {self.delta:+#x}"


@dataclass(frozen=True, slots=True)
class TssStack:
    """A stack pointer of the TSS that is the end of another stack."""

    field: str
    stack: layout.Region

    def apply(self, target: Target) -> Target:
        """The target with that TSS."""
        return _with_word(target, layout.PERCPU, layout.TSS_OFFSET + TSS_FIELDS[self.field], lambda _: self.stack.end)

    def words(self, target: Target) -> str:
        """What is different, for people."""
        return f"TSS: {self.field} is the end of `{self.stack.name}`"


@dataclass(frozen=True, slots=True)
class NotPatched:
    """Alternatives that the kernel does not write, although the machine has the feature."""

    feature: str

    def apply(self, target: Target) -> Target:
        """The target with the code for machines without it."""
        sites = {one.address - layout.KERNEL_TEXT.start for one in image.load().alternatives if one.feature == self.feature}
        kept = {
            profile: tuple(one for one in patches if one.region != layout.KERNEL_TEXT.name or one.offset not in sites)
            for profile, patches in target.alternatives.items()
        }
        return replace(target, alternatives=kept)

    def words(self, target: Target) -> str:
        """What is different, for people."""
        return f"the alternatives for {self.feature} are not written"


@dataclass(frozen=True, slots=True)
class Register:
    """A register that the kernel sets up at start-up, with bits it should not have (`with_`) or without bits it needs (`without`)."""

    name: str
    text: str
    without: int = 0
    with_: int = 0

    def apply(self, target: Target) -> Target:
        """The target whose every scenario begins so."""
        return replace(target, scenarios=tuple(replace(one, registers=self._changed(one)) for one in target.scenarios))

    def _changed(self, scenario: Scenario) -> dict[str, int]:
        usual = {**default_registers(PROFILES["intel"], scenario.cpl), **scenario.registers}[self.name]
        return {**scenario.registers, self.name: usual & ~self.without | self.with_}

    def words(self, target: Target) -> str:
        """What is different, for people."""
        return f"{self.name}: {self.text}"


def _with_word(target: Target, region: layout.Region, offset: int, change: Callable[[int], int]) -> Target:
    """The target with a word of every profile's memory changed."""
    alternatives = {}
    for profile in PROFILES:
        patches = target.alternatives.get(profile, ())
        page = patched(target.pages, patches)[FRAMES[region.name] + offset // layout.PAGE]
        (old,) = struct.unpack_from("<Q", page, offset % layout.PAGE)
        alternatives[profile] = (*patches, patch(region, offset, struct.pack("<Q", change(old) & MASK64)))
    return replace(target, alternatives=alternatives)
