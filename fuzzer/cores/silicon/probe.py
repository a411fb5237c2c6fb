"""Whether this host can be asked, and what its processor is, from what Linux says of it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from reference.profiles import PROFILES, Profile

_CPUINFO: Final = Path("/proc/cpuinfo")
_PROFILES: Final = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}
"""The profile that a vendor's answers count for."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The host's processor: its vendor's profile, with what CPUID says of this one."""

    version: str
    vendor: str
    flags: frozenset[str]
    max_leaf: int
    clears_base: bool
    """A null selector in FS or GS makes its base 0 (CPUID Fn8000_0021 EAX[6], NullSelectorClearsBase; on Intel always)."""

    @property
    def profile(self) -> Profile | None:
        """The profile that its answers count for; None for a vendor that there is none of."""
        if self.vendor not in _PROFILES:
            return None
        return replace(
            PROFILES[_PROFILES[self.vendor]],
            smap="smap" in self.flags,
            smep="smep" in self.flags,
            invpcid="invpcid" in self.flags,
            cpuid_max_leaf=self.max_leaf,
            null_load_clears_base=self.clears_base,
        )


def processor() -> Processor | None:
    """What Linux says of the first processor; None where there is nothing to read."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return None
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    said = {name.strip(): value.strip() for name, _, value in pairs}
    if not {"vendor_id", "cpu family", "model", "stepping", "flags", "cpuid level"} <= said.keys():
        return None
    version = "-".join((said["vendor_id"], said["cpu family"], said["model"], said["stepping"]))
    cleared = "null_seg" not in said.get("bugs", "").split()
    return Processor(version, said["vendor_id"], frozenset(said["flags"].split()), int(said["cpuid level"]), cleared)


def available() -> tuple[str | None, str]:
    """(version of the processor, empty string), or (None, why it cannot be asked)."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None, "the processor can be asked under Linux on x86-64 only"
    found = processor()
    if found is None:
        return None, f"{_CPUINFO} does not say what the processor is"
    if found.profile is None:
        return None, f"there is no profile for processors of {found.vendor}"
    if "fsgsbase" not in found.flags:
        return None, "the processor or its kernel has no FSGSBASE: bases cannot be set from user mode"
    if "la57" in found.flags:
        return None, "the processor has 57-bit linear addresses; the profiles have 48"
    if not hasattr(os, "memfd_create"):
        return None, "this Python has no memfd_create"
    return _started(found)


def _started(found: Processor) -> tuple[str | None, str]:
    """Whether the kernel lets a child be what it has to be: descriptors of its own, a filter for system calls, its addresses."""
    from fuzzer.cores.core import CoreError
    from fuzzer.cores.silicon.core import SiliconCore

    try:
        SiliconCore().close()
    except (CoreError, OSError) as error:
        return None, str(error)
    return found.version, ""
