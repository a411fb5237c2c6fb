"""The house rules: what is installed and from where, who may import whom, and that the papers are in order."""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TOP = ("reference", "fuzzer", "workers", "db", "entryfuzz")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SOURCES = sorted(path for top in TOP for path in (ROOT / top).rglob("*.py"))

SHARED = {"bits", "faults", "image", "profiles", "linux.entry_code"}
"""Modules of the reference that cores and targets may import: states, names and numbers."""
SHARED_FUNCTIONS = {"exception_name", "vector_name"}
"""The only functions among them: they name what happened, and decide nothing."""


# Packages and versions


def test_every_package_is_listed() -> None:
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES if path.name == "__init__.py"}

    assert sorted(found) == sorted(PACKAGES)


def test_every_package_resolves_inside_this_repository(tmp_path: Path) -> None:
    """From elsewhere, as for a user: `db` and `workers` are names that other projects use too."""
    code = "import importlib, json, sys; print(json.dumps([importlib.import_module(name).__file__ for name in sys.argv[1:]]))"

    done = subprocess.run([sys.executable, "-c", code, *PACKAGES], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == [str(ROOT / name.replace(".", "/") / "__init__.py") for name in PACKAGES]


def test_this_python_is_one_that_the_project_promises_to_run_on() -> None:
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(platform.python_version())


def test_the_oldest_python_is_the_one_that_the_tools_check_for() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in MAKEFILE


def test_every_dependency_is_pinned_to_a_version_that_the_project_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *(one for extra in extras for one in extra)]

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


# Who may import whom


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        pytest.param("fuzzer/cores/shortcut.py", "", None, id="nothing-added"),
        pytest.param("fuzzer/cores/shortcut.py", "from reference.delivery import deliver", "adapters", id="core-calls-the-spec"),
        pytest.param("fuzzer/cores/shortcut.py", "from reference.instructions.far import retf", "adapters", id="core-calls-an-instruction"),
        pytest.param(
            "fuzzer/cores/shortcut.py", "from fuzzer.explain import explain", "adapters", id="core-calls-the-spec-through-another"
        ),
        pytest.param("fuzzer/targets/shortcut.py", "from reference.paging import translate", "adapters", id="target-calls-the-spec"),
        pytest.param("fuzzer/shortcut.py", "import sqlalchemy", "fuzzer", id="fuzzer-opens-a-database"),
        pytest.param("fuzzer/shortcut.py", "import db.store", "layers", id="fuzzer-imports-its-neighbour"),
        pytest.param("db/shortcut.py", "import reference.bits", "db", id="database-learns-x86"),
        pytest.param("reference/shortcut.py", "import fuzzer.case", "layers", id="reference-looks-up"),
        pytest.param("workers/shortcut.py", "import entryfuzz.output", "layers", id="workers-look-up"),
    ],
)
def test_the_import_rules_see_a_forbidden_import(tmp_path: Path, module: str, line: str, broken: str | None) -> None:
    for top in TOP:
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / module).write_text(line + "\n", encoding="utf-8")
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    only = ["--contract", broken] if broken else []

    done = subprocess.run([*lint, *only], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == (1 if broken else 0), done.stdout
    assert (module.removesuffix(".py").replace("/", ".") in done.stdout) == bool(broken)


def test_every_module_of_the_reference_is_shared_with_the_adapters_or_forbidden_to_them() -> None:
    contracts = {contract["id"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    modules = {path.stem for path in (ROOT / "reference").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"linux"}
    modules |= {f"linux.{path.stem}" for path in (ROOT / "reference" / "linux").glob("*.py")}

    forbidden = {name.removeprefix("reference.") for name in contracts["adapters"]["forbidden_modules"]}

    assert forbidden == modules - SHARED - {"__init__", "linux.__init__"}


def taken_from_the_reference(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reference."):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "reference":
            pytest.fail(f"{path}: import the names, not the module, so that this test can see them")
        elif isinstance(node, ast.Import):
            assert not any(alias.name.partition(".")[0] == "reference" for alias in node.names), path


def test_the_adapters_take_types_and_numbers_from_the_reference_and_no_functions() -> None:
    adapters = [path for part in ("cores", "targets") for path in (ROOT / "fuzzer" / part).rglob("*.py")]

    taken = {name for path in adapters for name in taken_from_the_reference(path)}

    assert {name for name in taken if name[0].islower()} <= SHARED_FUNCTIONS
    assert "Image" in taken


# Papers


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_fewer_than_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300


def test_make_help_lists_every_chore() -> None:
    chores = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))

    done = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    listed = re.findall(r"^make ([a-z-]+) - \S", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(chores)
    assert chores == set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert chores >= {"setup", "fuzz", "test", "check", "format", "bench", "clean"}


def test_decisions_are_numbered_without_gaps_and_fit_on_a_page() -> None:
    pages = sorted((ROOT / "docs" / "decisions").iterdir())

    assert pages
    assert [page.name[:5] for page in pages] == [f"{number:04}-" for number in range(1, len(pages) + 1)]
    for number, page in enumerate(pages, start=1):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name)
        assert lines[0].startswith(f"# {number}. "), page.name
        assert len(lines) <= 60, page.name


def test_the_files_that_architecture_names_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

    named = re.findall(r"`((?:" + "|".join((*TOP, "tests", "docs", "examples")) + r")/[\w./-]*)`", text)

    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_continuous_integration_can_be_started() -> None:
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    chores = re.findall(r"^ *make ([\w-]+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert chores == ["setup", "check", "test", "coverage", "compose-test"]
