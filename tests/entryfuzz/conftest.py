from pathlib import Path

import pytest
from entryfuzz_program import Entryfuzz, Stored, program, store_example


@pytest.fixture
def entryfuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entryfuzz:
    """Runs a command line in an empty directory."""
    monkeypatch.chdir(tmp_path)
    for variable in ("ENTRYFUZZ_DB", "ENTRYFUZZ_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    return program()


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """A database in which the push to a non-canonical address was found 3 times."""
    return store_example("push-non-canonical.json", str(tmp_path / "stored.db"))
