"""A copy of the specification under another name, into which a test plants a wrong rule; its data types stay the shared ones."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import reference

SHARED = ("image", "profiles")
"""Modules of plain data that both sides of a comparison have in common."""

_IMPORT = re.compile(rf"^(\s*from )reference(?!\.(?:{'|'.join(SHARED)})\b)(?=[ .])", re.MULTILINE)


class Copy:
    """The copied package: `module` gives one of its modules by its name below the package."""

    def __init__(self, name: str) -> None:
        self._name = name

    def module(self, name: str) -> Any:
        return importlib.import_module(f"{self._name}.{name}")


@contextmanager
def copied_reference(directory: Path, name: str) -> Iterator[Copy]:
    """`reference` copied to `directory` as the package `name`, with its imports rewritten; gone again afterwards."""
    source = Path(reference.__file__).parent
    shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (directory / name).rglob("*.py"):
        path.write_text(_IMPORT.sub(rf"\g<1>{name}", path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.path.insert(0, str(directory))
    try:
        yield Copy(name)
    finally:
        sys.path.remove(str(directory))
        for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
            del sys.modules[module]
