"""The conformance checks on one core, in a process that the core may take with it."""

from __future__ import annotations

from collections.abc import Iterator

from entryfuzz.isolation import Lost, results
from entryfuzz.replay import find_core
from fuzzer.conformance import CHECKS, Result, checked_one
from fuzzer.cores.registry import load


def checked(name: str) -> Iterator[Result]:
    """The result of each check, each in a process of its own: one that is lost breaks its check and no other."""
    find_core(name)
    for number, check in enumerate(CHECKS):
        try:
            yield from results(_check, name, number)
        except Lost as lost:
            yield Result(check.name, check.promise, "broken", str(lost))


def _check(name: str, number: int) -> Iterator[Result]:
    yield checked_one(load(name), CHECKS[number])
