"""The core `bochs`: Bochs runs whole machines, events included, with the harness in its system management mode."""

from __future__ import annotations

from typing import Final

from fuzzer.cores.bochs.probe import available
from fuzzer.cores.bochs.process import Process
from fuzzer.cores.bochs.timing import BochsTiming
from fuzzer.cores.core import CoreError
from fuzzer.cores.guest.native import NativeCore

MODELS: Final = {
    "intel": "corei7_skylake_x",
    "amd": "ryzen",
    "intel-2010": "corei5_arrandale_m520",
    "intel-2012": "corei7_ivy_bridge_3770k",
    "intel-pti": "corei7_skylake_x",
}
"""Bochs's CPU model for each profile."""


class BochsCore(NativeCore):
    """Runs cases on the Bochs that is installed, one process for each CPU model."""

    name = "bochs"
    timing = BochsTiming()
    most_events = 2
    """Its HPET has three timers, and one of them is the stop."""

    def __init__(self) -> None:
        super().__init__()
        version, reason = available()
        if version is None:
            raise CoreError(f"bochs: {reason}")
        self.version: str = version

    def start(self, profile: str) -> Process:
        """A Bochs for a profile."""
        if profile not in MODELS:
            raise CoreError(f"bochs: no CPU model for profile {profile!r}; known: {', '.join(MODELS)}")
        return Process(MODELS[profile])
