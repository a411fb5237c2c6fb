"""All mutants by name, and the controls: the same things with nothing wrong."""

from __future__ import annotations

from typing import Final

from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.mutants.cores import CORES
from fuzzer.mutants.descriptors import DESCRIPTORS
from fuzzer.mutants.frames import FLAGS, FRAMES
from fuzzer.mutants.mutant import Kind, Mutant
from fuzzer.mutants.nmi import NMI
from fuzzer.mutants.returns import RETURNS
from fuzzer.mutants.swapgs import SWAPGS
from fuzzer.mutants.witness import Witness

MUTANTS: Final = {mutant.name: mutant for mutant in (*SWAPGS, *FLAGS, *FRAMES, *RETURNS, *NMI, *DESCRIPTORS, *CORES)}


class SameCore(UnicornCore):
    """A core with nothing changed: whatever it is caught at is a false alarm."""


CONTROLS: Final = {
    mutant.name: mutant
    for mutant in (
        Mutant("clean-build", Kind.ENTRY_CODE, "the target as it is", "", Witness("interrupt-from-user")),
        Mutant("clean-core", Kind.CORE, "the core as it is", "", Witness("interrupt-from-user"), core=SameCore),
    )
}
