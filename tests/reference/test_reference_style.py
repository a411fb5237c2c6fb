"""The specification reads like the manual: every public function says what it promises, every rule where it is written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import reference
from reference.instructions import AROUND_TS, BY_CODE, BY_MNEMONIC, not_modelled
from reference.instructions.table32 import BY_CODE_32, BY_MNEMONIC_32

ROOT = Path(reference.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TABLES = (BY_MNEMONIC, BY_CODE, AROUND_TS, BY_MNEMONIC_32, BY_CODE_32)
RULES = sorted({rule for table in TABLES for rule in table.values()}, key=lambda rule: (rule.__module__, rule.__name__))


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_function_has_a_docstring(path: Path) -> None:
    assert [node.name for node in functions(path) if not node.name.startswith("_") and not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_has_a_docstring_and_fewer_than_300_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) < 300


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}")
def test_every_instruction_in_the_table_cites_its_manual(rule: object) -> None:
    if rule is not_modelled:
        return  # it is the absence of a rule

    assert re.search(r"SDM Vol\. \d[A-D]?|APM Vol\. \d", rule.__doc__ or ""), rule


def test_the_specification_imports_nothing_of_ours() -> None:
    ours = {"db", "workers", "fuzzer", "entryfuzz"}

    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not ours & {name.partition(".")[0] for name in names}, path
