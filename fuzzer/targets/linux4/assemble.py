"""Assembles the target with GNU binutils and writes what is committed: entry.bin and entry.json.

Only whoever changes the entry code needs `as`, `ld`, `objcopy` and `nm`: `python -m fuzzer.targets.linux4.assemble`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzzer.targets.layout import KERNEL_TEXT
from fuzzer.targets.linux4.image import HERE, SYMBOLS_FILE, TEXT_FILE, constants

TOOLS = ("as", "ld", "objcopy", "nm")
SOURCE = HERE / "entry.S"


class AssembleError(Exception):
    """The image cannot be made; the message is for the person who asked."""


def missing_tools() -> list[str]:
    """The GNU binutils that are not on the path."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def assemble() -> tuple[bytes, dict[str, int]]:
    """The text of entry.S linked at KERNEL_TEXT.start, and the address of each label."""
    if missing := missing_tools():
        raise AssembleError(f"{', '.join(missing)}: not found; install GNU binutils to assemble {SOURCE.name}")

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "constants.inc").write_text(_constants_inc(), encoding="utf-8")
        _run("as", "--64", "--fatal-warnings", "-I", name, "-I", str(HERE), "-o", str(work / "entry.o"), str(SOURCE))
        link = ("-static", "-nostdlib", "--fatal-warnings", "--build-id=none", "-z", "noexecstack", "-e", "system_call")
        _run("ld", *link, f"-Ttext={KERNEL_TEXT.start:#x}", "-o", str(work / "entry.elf"), str(work / "entry.o"))
        _run("objcopy", "-O", "binary", "-j", ".text", str(work / "entry.elf"), str(work / "entry.bin"))
        text = (work / "entry.bin").read_bytes()
        symbols = _labels(_run("nm", str(work / "entry.elf")))

    if len(text) > KERNEL_TEXT.size:
        raise AssembleError(f"{SOURCE.name}: {len(text)} bytes of text, only {KERNEL_TEXT.size} fit into {KERNEL_TEXT.name}")
    return text, symbols


def description(text: bytes, symbols: dict[str, int]) -> str:
    """The content of entry.json: sizes, labels and shared numbers, sorted so that a change reads as one."""
    content = {
        "base": f"{KERNEL_TEXT.start:#x}",
        "size": len(text),
        "symbols": {name: f"{address:#x}" for name, address in symbols.items()},
        "constants": {name: f"{value:#x}" for name, value in constants().items()},
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write entry.bin and entry.json beside this file."""
    try:
        text, symbols = assemble()
    except AssembleError as error:
        print(error, file=sys.stderr)
        return 1

    TEXT_FILE.write_bytes(text)
    SYMBOLS_FILE.write_text(description(text, symbols), encoding="utf-8")
    print(f"{TEXT_FILE.name}: {len(text)} bytes, {len(symbols)} symbols", file=sys.stderr)
    return 0


def _constants_inc() -> str:
    return "".join(f".set {name}, {value:#x}\n" for name, value in constants().items())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssembleError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def _labels(listing: str) -> dict[str, int]:
    """The labels in the text section of what `nm` printed, sorted by name."""
    rows = (line.split() for line in listing.splitlines())
    return dict(sorted((name, int(address, 16)) for address, kind, name in rows if kind in "tT" and not name.startswith("_")))


if __name__ == "__main__":
    sys.exit(main())
