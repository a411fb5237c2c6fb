"""Bochs keeps every promise of a core, arrival of events at each boundary included."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fuzzer.conformance import CHECKS, Check, checked_one
from fuzzer.cores.bochs.core import BochsCore
from fuzzer.cores.bochs.probe import available

VERSION, MISSING = available()
pytestmark = pytest.mark.skipif(VERSION is None and "CI" not in os.environ, reason=MISSING or "bochs is here")


@pytest.fixture(scope="module", name="core")
def _core() -> Iterator[BochsCore]:
    core = BochsCore()
    yield core
    core.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_bochs_keeps_the_promise(core: BochsCore, check: Check) -> None:
    result = checked_one(core, check)
    assert result.state == "ok", result.detail
