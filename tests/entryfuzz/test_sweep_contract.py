"""Entry code that breaks its contract in a sweep is a finding: stored, listed, shown and run again like a divergence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from entryfuzz_program import Entryfuzz

from db.engine import open_database
from db.sweep_records import PathFound
from db.sweeps import save_path, start_sweep
from fuzzer import build
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.targets import layout
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.target import patch
from workers.paths import PathWork
from workers.sweeping import SweepSettings, new_campaign

NOPS = b"\x90\x90\x90"


@pytest.fixture
def without_swapgs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target linux4 without the SWAPGS that system_call begins with."""
    target = TARGETS["linux4"]
    piece = patch(layout.KERNEL_TEXT, target.symbols["system_call"] - layout.KERNEL_TEXT.start, NOPS)
    changed = replace(target, edits=(piece,))
    monkeypatch.setitem(TARGETS, "linux4", changed)
    rebuilt = build.builder(changed)
    for module in ("workers.paths", "entryfuzz.replay"):
        monkeypatch.setattr(f"{module}.build", rebuilt)


def swept() -> PathFound:
    work = PathWork(0, "linux4", "system-call-from-user", "intel", "", ("nmi",), ("nmi",), 1)
    return work.run([UnicornCore()], lambda number, place: None)


def test_a_broken_promise_is_a_bucket_of_kind_contract(without_swapgs: None) -> None:
    result = swept()

    buckets = {finding.bucket for finding in result.found.findings if finding.bucket.kind == "contract"}
    assert result.path.contract_violations > 0
    assert "c" in result.path.cells["nmi"]
    assert {bucket.by for bucket in buckets} == {"entry code"}
    assert "stack-of-its-own" in {bucket.expected for bucket in buckets}, "RSP was loaded from user memory"


def test_it_can_be_shown_and_run_again(without_swapgs: None, entryfuzz: Entryfuzz, tmp_path: Path) -> None:
    settings = SweepSettings("linux4", ("system-call-from-user",), ("intel",), ("nmi",), ("nmi",), 1, "unicorn", 1, "broken.db")
    engine = open_database(settings.database)
    save_path(engine, start_sweep(engine, new_campaign(settings), "key", 1), swept())
    engine.dispose()

    rows = entryfuzz("divergences", "list", "--db", "broken.db", "--json").json()
    (row, *_) = [row for row in rows if row["kind"] == "contract"]
    shown = entryfuzz("divergences", "show", row["id"], "--db", "broken.db")
    ran = entryfuzz("case", "run", row["id"], "--db", "broken.db")

    assert shown.code == 0
    assert "the contract is broken" in shown.out
    assert ran.code == 1
