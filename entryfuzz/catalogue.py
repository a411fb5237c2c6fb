"""What there is to fuzz and to fuzz with: cores and targets as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entryfuzz.disassembly import Line, Symbols
from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.cores.core import CoreError
from fuzzer.targets.target import Target
from reference.profiles import PROFILES

if TYPE_CHECKING:
    from fuzzer.cores.registry import CoreInfo


def core_rows() -> list[dict[str, Any]]:
    """Every core: its engine's version, whether it can be used, who delivers events, the package that brings it, and what is missing."""
    from fuzzer.cores.registry import CORES

    return [_core_row(info) for info in CORES.values()]


def _core_row(info: CoreInfo) -> dict[str, Any]:
    version, reason = info.available()
    core = None
    if version is not None:
        try:
            core = info.load()
        except CoreError as error:
            reason = str(error)
    return {
        "name": info.name,
        "version": version,
        "available": core is not None,
        "delivers_events": core.delivers_events if core else None,
        "package": info.package,
        "reason": reason,
    }


def target_row(target: Target) -> dict[str, Any]:
    """A target in a list."""
    return {"name": target.name, "summary": target.summary, "scenarios": [scenario.name for scenario in target.scenarios]}


def scenario_starts(target: Target) -> dict[str, str]:
    """The name of the address at which each scenario starts."""
    symbols = Symbols(target.symbols)
    return {scenario.name: symbols.name(_start(target, scenario.name)) for scenario in target.scenarios}


def _start(target: Target, scenario: str) -> int:
    profile = next(iter(PROFILES))
    return build(Case(target.name, scenario, profile)).registers["rip"]


def target_json(target: Target, lines: list[Line]) -> dict[str, Any]:
    """A target whole: scenarios, symbols and disassembly."""
    return {
        "name": target.name,
        "summary": target.summary,
        "scenarios": [
            {"name": each.name, "summary": each.summary, "cpl": each.cpl, "rip": f"{_start(target, each.name):#x}"}
            for each in target.scenarios
        ],
        "symbols": {name: f"{address:#x}" for name, address in target.symbols.items()},
        "disassembly": [
            {"address": f"{line.address:#x}", "symbol": line.symbol or None, "code": line.code.hex(), "text": line.text} for line in lines
        ],
    }
