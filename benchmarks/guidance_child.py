"""A guided child that knows the planted cores of `fuzzer/mutants` by name."""

from __future__ import annotations

import sys

from fuzzer.guided import child


def register() -> None:
    """Make the planted cores known by their names; what this imports would not be instrumented any more."""
    from fuzzer.cores import registry

    for name, make in planted().items():
        registry.CORES[name] = registry.CoreInfo(name, "unicorn", make)


def planted() -> dict[str, object]:
    """The planted cores of the catalogue, and narrow ones: wrong only where several things come together."""
    from functools import partial

    from narrow_doormen import NARROW

    from fuzzer.cores.unicorn.core import UnicornCore
    from fuzzer.cores.unicorn.machine import Parts
    from fuzzer.mutants.catalogue import MUTANTS

    known = {name: mutant.core for name, mutant in MUTANTS.items() if mutant.core}
    return known | {name: partial(UnicornCore, Parts(doorman=doorman)) for name, doorman in NARROW.items()}


if __name__ == "__main__":
    register()
    child.main(sys.argv[1])
