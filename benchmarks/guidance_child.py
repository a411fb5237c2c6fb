"""A guided child that knows the planted cores of `fuzzer/mutants` by name."""

from __future__ import annotations

import sys

from fuzzer.guided import child


def register() -> None:
    from fuzzer.cores import registry
    from fuzzer.mutants.catalogue import MUTANTS

    for name, mutant in MUTANTS.items():
        if mutant.core:
            registry.CORES[name] = registry.CoreInfo(name, "unicorn", mutant.core)


if __name__ == "__main__":
    register()
    child.main(sys.argv[1])
