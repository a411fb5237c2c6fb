"""Print what pyproject.toml requires for the extras named (`postgres,other`), one requirement a line, with what builds the package."""

import sys
import tomllib
from pathlib import Path

names = [name for name in sys.argv[1].split(",") if name]
pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
extras = pyproject["project"]["optional-dependencies"]
if unknown := [name for name in names if name not in extras]:
    sys.exit(f"EXTRAS: pyproject.toml has no extra {unknown[0]}; it has {', '.join(sorted(extras))}")
print(
    *pyproject["build-system"]["requires"],
    *pyproject["project"]["dependencies"],
    *(one for name in names for one in extras[name]),
    sep="\n",
)
