"""Assembles child.S with GNU binutils and writes what is committed: child.bin. `python -m fuzzer.cores.silicon.assemble`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from fuzzer.cores.silicon.exchange import NUMBERS, TEXT
from fuzzer.cores.silicon.program import TEXT_FILE

TOOLS: Final = ("as", "ld", "objcopy")
SOURCE: Final = TEXT_FILE.with_suffix(".S")


class AssembleError(Exception):
    """The text cannot be made; the message is for the person who asked."""


def missing_tools() -> list[str]:
    """The GNU binutils that are not on the path."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def assemble() -> bytes:
    """The text of the child, linked where it will stand."""
    if missing := missing_tools():
        raise AssembleError(f"{', '.join(missing)}: not found; install GNU binutils to assemble {SOURCE.name}")

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "constants.inc").write_text("".join(f".set {key}, {value:#x}\n" for key, value in NUMBERS.items()), encoding="utf-8")
        _run("as", "--64", "--fatal-warnings", "-I", name, "-o", str(work / "child.o"), str(SOURCE))
        link = ("-static", "-nostdlib", "--build-id=none", "-z", "noexecstack", "-e", "_start", f"-Ttext={TEXT:#x}")
        _run("ld", *link, "-o", str(work / "child.elf"), str(work / "child.o"))
        _run("objcopy", "-O", "binary", "-j", ".text", str(work / "child.elf"), str(work / "child.bin"))
        return (work / "child.bin").read_bytes()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssembleError(f"{command[0]}: {done.stderr.strip()}")


def main() -> int:
    """Write child.bin beside this file."""
    try:
        text = assemble()
    except AssembleError as error:
        print(error, file=sys.stderr)
        return 1
    TEXT_FILE.write_bytes(text)
    print(f"{TEXT_FILE.name}: {len(text)} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
