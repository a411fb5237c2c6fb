"""One Unicorn core for all tests of the fuzzer: it leaves nothing behind between cases, which is itself tested."""

from __future__ import annotations

import pytest

from fuzzer.cores.unicorn.core import UnicornCore


@pytest.fixture(scope="session")
def core() -> UnicornCore:
    return UnicornCore()
