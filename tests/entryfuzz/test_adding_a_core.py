"""A core of another package is found by its entry point, and the document shows the example that is tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "core"
NAME = "unicorn-stepped"


def installed(place: Path, source: str, target: str, name: str = NAME) -> dict[str, str]:
    """An environment in which a package with this module and entry point is installed."""
    (place / "stepped.py").write_text(source)
    info = place / "entryfuzz_stepped-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: entryfuzz-stepped\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[entryfuzz.cores]\n{name} = {target}\n")
    return os.environ | {"PYTHONPATH": f"{place}{os.pathsep}{ROOT}"}


def entryfuzz(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "entryfuzz", *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def stepped(tmp_path: Path) -> dict[str, str]:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    target = project["entry-points"]["entryfuzz.cores"][NAME]
    return installed(tmp_path, (EXAMPLE / "stepped.py").read_text(), target)


def test_the_example_is_listed_and_passes_the_checks(stepped: dict[str, str]) -> None:
    rows = {row["name"]: row for row in json.loads(entryfuzz(stepped, "cores", "list", "--json").stdout)}
    checked = entryfuzz(stepped, "cores", "check", NAME, "--json")

    assert rows[NAME]["available"] is True
    assert rows[NAME]["package"] == "entryfuzz-stepped"
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {result["state"] for result in json.loads(checked.stdout)} == {"ok"}


def test_the_example_runs_a_case(stepped: dict[str, str]) -> None:
    done = entryfuzz(stepped, "case", "run", "examples/push-non-canonical.json", "--core", NAME, "--json")

    assert done.returncode == 1
    assert [each["core"] for each in json.loads(done.stdout)["divergences"]] == [NAME]


def test_a_core_that_cannot_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    broken = installed(tmp_path, "import no_such_module\n", "stepped:SteppedCore")

    listed = entryfuzz(broken, "cores", "list", "--json")
    ran = entryfuzz(broken, "case", "run", "examples/push-non-canonical.json", "--core", NAME)

    assert {row["name"]: row["available"] for row in json.loads(listed.stdout)}[NAME] is False
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    assert "no_such_module" in ran.stderr


def test_no_package_takes_the_place_of_a_core_of_this_project(tmp_path: Path) -> None:
    impostor = installed(tmp_path, (EXAMPLE / "stepped.py").read_text(), "stepped:SteppedCore", name="unicorn")

    rows = [row for row in json.loads(entryfuzz(impostor, "cores", "list", "--json").stdout) if row["name"] == "unicorn"]

    assert [row["package"] for row in rows] == ["unicorn"]


def test_the_document_shows_the_example_as_it_is_in_under_sixty_lines() -> None:
    text = (ROOT / "docs" / "adding-a-core.md").read_text()
    files = [(EXAMPLE / name).read_text() for name in ("stepped.py", "pyproject.toml")]

    assert all(file in text for file in files)
    assert sum(len(file.splitlines()) for file in files) < 60
