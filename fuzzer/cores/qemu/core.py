"""The core `qemu`: QEMU's system emulation runs whole machines, events included, with the harness in its system management mode."""

from __future__ import annotations

from typing import Final

from fuzzer.cores.core import CoreError
from fuzzer.cores.guest.native import NativeCore
from fuzzer.cores.qemu.probe import available
from fuzzer.cores.qemu.process import Process
from fuzzer.cores.qemu.timing import QemuTiming

_WITHOUT: Final = "phys-bits=40,-la57,-umip,-pku,-pcid"
MODELS: Final = {
    "intel": f"Skylake-Client,{_WITHOUT}",
    "amd": f"EPYC,{_WITHOUT}",
    "intel-2010": f"Westmere,{_WITHOUT}",
    "intel-2012": f"IvyBridge,{_WITHOUT}",
    "intel-pti": f"Skylake-Client,{_WITHOUT}",
}
"""QEMU's CPU model for each profile, without the features that no case may reach."""


class QemuCore(NativeCore):
    """Runs cases on the QEMU that is installed, one process for each CPU model."""

    name = "qemu"
    timing = QemuTiming()

    def __init__(self) -> None:
        super().__init__()
        version, reason = available()
        if version is None:
            raise CoreError(f"qemu: {reason}")
        self.version: str = version

    def start(self, profile: str) -> Process:
        """A QEMU for a profile."""
        if profile not in MODELS:
            raise CoreError(f"qemu: no CPU model for profile {profile!r}; known: {', '.join(MODELS)}")
        return Process(MODELS[profile])
