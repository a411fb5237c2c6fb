"""The same seed gives the same buckets: twice, in another process, and whatever the hash seed of Python is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_SIGNATURES = """
import json, sys
from fuzzer.build import build
from fuzzer.compare import compare
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.explain import explain
from fuzzer.generate.generator import generate
from reference.profiles import PROFILES
from reference.run import run

def signatures(seed, count):
    core, found = UnicornCore(), []
    for number in range(count):
        for target in ("linux4", "snippets"):
            case = generate(seed, target, tuple(PROFILES), number)
            image = build(case)
            (seen,) = core.run([image])
            comparison = compare(image, run(image), seen)
            if comparison.differences:
                explanation = explain(image, core)
                text = explanation.signature.text if explanation else None
                found.append([case.digest, text, [[each.field, each.expected, each.observed] for each in comparison.differences]])
            if comparison.tolerated:
                found.append([case.digest, list(comparison.tolerated), []])
    return found

if __name__ == "__main__":
    print(json.dumps(signatures(int(sys.argv[1]), int(sys.argv[2]))))
"""


def in_a_process(seed: int, count: int, hash_seed: str) -> list[object]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", _SIGNATURES, str(seed), str(count)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300)
    found: list[object] = json.loads(done.stdout)
    return found


def here(seed: int, count: int) -> list[object]:
    names: dict[str, object] = {"__name__": "signatures"}
    exec(compile(_SIGNATURES, "signatures", "exec"), names)
    signatures = names["signatures"]
    assert callable(signatures)
    found: list[object] = json.loads(json.dumps(signatures(seed, count)))
    return found


def test_a_seed_gives_the_same_signatures_twice_and_in_another_process() -> None:
    first = here(1, 150)

    assert len(first) > 10
    assert here(1, 150) == first
    assert in_a_process(1, 150, "1") == first
    assert in_a_process(1, 150, "2") == first


@pytest.mark.slow
def test_thousands_of_cases_give_the_same_signatures_in_two_processes() -> None:
    assert in_a_process(2, 2_000, "1") == in_a_process(2, 2_000, "77")


def test_another_seed_gives_other_cases() -> None:
    assert here(3, 30) != here(4, 30)
