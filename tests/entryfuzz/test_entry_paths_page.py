"""docs/entry-paths.md is what the command writes, and says what the manuals and the documents say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from entryfuzz.cli import main
from fuzzer.entry_paths import EntryPath, entry_paths
from fuzzer.targets.linux4.target import TARGET
from reference.profiles import PROFILES

PAGE = Path(__file__).parents[2] / "docs" / "entry-paths.md"


@pytest.fixture(scope="module")
def by_entry() -> dict[str, EntryPath]:
    return {path.entry: path for path in entry_paths()}


def output(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["targets", "paths", "linux4", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_committed_page_is_what_the_command_writes() -> None:
    assert output("--markdown") == PAGE.read_text(encoding="utf-8"), "run make docs"


def test_every_scenario_is_on_the_page() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(encoding="utf-8").partition("## Scenarios")[2], re.MULTILINE)

    assert listed == [scenario.name for scenario in TARGET.scenarios]


def test_every_exception_vector_has_a_row_with_its_error_code(by_entry: dict[str, EntryPath]) -> None:
    """SDM Vol. 3A, Table 7-1."""
    exceptions = {path.vector: path.error_code for path in by_entry.values() if path.vector is not None and path.vector < 32}

    assert sorted(exceptions) == list(range(22))
    assert {vector for vector, pushes in exceptions.items() if pushes} == {8, 10, 11, 12, 13, 14, 17, 21}


def test_the_paranoid_entries_are_the_super_atomic_ones(by_entry: dict[str, EntryPath]) -> None:
    paranoid = {entry: path.paranoid for entry, path in by_entry.items() if path.paranoid != "no"}

    assert paranoid == {
        "debug": "yes",
        "nmi": "code of its own",
        "int3": "yes",
        "double_fault": "yes, stays on its stack",
        "machine_check": "yes",
    }


def test_a_way_that_no_run_takes_says_why(by_entry: dict[str, EntryPath]) -> None:
    silent = {entry for entry, path in by_entry.items() if not path.from_user and not path.from_kernel}

    assert silent == {"control_protection"}
    assert all(by_entry[entry].note for entry in silent)


def test_isolated_page_tables_make_every_way_from_user_mode_longer(by_entry: dict[str, EntryPath]) -> None:
    both = [path.from_user for path in by_entry.values() if {"intel", "intel-pti"} <= path.from_user.keys()]

    assert len(both) > 20
    assert all(lengths["intel-pti"] > lengths["intel"] for lengths in both)


def test_the_short_table_and_the_json_have_every_way() -> None:
    rows = json.loads(output("--json"))

    assert [row["entry"] for row in rows] == [path.entry for path in entry_paths()]
    assert all(f" {row['entry']} " in output() for row in rows)
    assert set(rows[0]["from_user"]) == set(PROFILES)
