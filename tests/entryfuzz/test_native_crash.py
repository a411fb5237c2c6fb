"""An engine that takes its process down is told like any other finding."""

from __future__ import annotations

import json
from pathlib import Path

from entryfuzz_program import Entryfuzz

LOCKED_BTC = {
    "scenario": "kernel",
    "code": "f0 41 0f ba ff 10",
    "note": "LOCK BTC r15d, 16: LOCK is #UD with a register (SDM Vol. 2A, LOCK)",
}


def test_a_native_crash_is_an_observation(entryfuzz: Entryfuzz, tmp_path: Path) -> None:
    file = tmp_path / "crash.json"
    file.write_text(json.dumps(LOCKED_BTC), encoding="utf-8")

    result = entryfuzz("case", "run", str(file), "--json")

    assert result.code == 1
    observed = json.loads(result.out)
    assert observed["spec"]["fault"] == "#UD"
    assert observed["cores"]["unicorn"]["end"] == "core-crashed"
