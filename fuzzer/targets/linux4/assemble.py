"""Assembles the target with GNU binutils and writes what is committed: entry.bin and entry.json.

Only whoever changes the entry code needs `as`, `ld`, `objcopy` and `nm`: `python -m fuzzer.targets.linux4.assemble`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzzer.targets.layout import KERNEL_TEXT
from fuzzer.targets.linux4.image import ALTERNATIVE, FEATURES, HANDLERS, HERE, STUBS, SYMBOLS_FILE, TEXT_FILE, Alternative, constants

TOOLS = ("as", "ld", "objcopy", "nm")
SOURCE = HERE / "entry.S"


_NOPS = (b"", b"\x90", b"\x66\x90", b"\x0f\x1f\x00", b"\x0f\x1f\x40\x00", b"\x0f\x1f\x44\x00\x00")
"""The recommended NOP of each length (SDM Vol. 2B, NOP)."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """What comes out: the text linked at KERNEL_TEXT.start, the address of each label, and the alternatives."""

    text: bytes
    symbols: dict[str, int]
    alternatives: tuple[Alternative, ...]


class AssembleError(Exception):
    """The image cannot be made; the message is for the person who asked."""


def missing_tools() -> list[str]:
    """The GNU binutils that are not on the path."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def assemble() -> Assembled:
    """The whole of entry.S with what it includes."""
    if missing := missing_tools():
        raise AssembleError(f"{', '.join(missing)}: not found; install GNU binutils to assemble {SOURCE.name}")

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "constants.inc").write_text(_constants_inc(), encoding="utf-8")
        _run("as", "--64", "--fatal-warnings", "-I", name, "-I", str(HERE), "-o", str(work / "entry.o"), str(SOURCE))
        link = ("-static", "-nostdlib", "--fatal-warnings", "--build-id=none", "-z", "noexecstack", "-e", "system_call")
        _run("ld", *link, f"-Ttext={KERNEL_TEXT.start:#x}", "-o", str(work / "entry.elf"), str(work / "entry.o"))
        text = _section(work, ".text")
        alternatives = tuple(_alternatives(_section(work, ".altinstructions")))
        symbols = _labels(_run("nm", str(work / "entry.elf")))

    if len(text) > KERNEL_TEXT.size:
        raise AssembleError(f"{SOURCE.name}: {len(text)} bytes of text, only {KERNEL_TEXT.size} fit into {KERNEL_TEXT.name}")
    return Assembled(text, symbols, alternatives)


def _section(work: Path, name: str) -> bytes:
    _run("objcopy", "-O", "binary", "-j", name, str(work / "entry.elf"), str(work / "section.bin"))
    return (work / "section.bin").read_bytes()


def _alternatives(table: bytes) -> Iterator[Alternative]:
    """The rows of .altinstructions, each replacement made as long as the code it replaces."""
    features = {number: name for name, number in FEATURES.items()}
    for address, feature, site, size, code in ALTERNATIVE.iter_unpack(table):
        if not size <= site < len(_NOPS):
            raise AssembleError(f"{SOURCE.name}: {address:#x}: {size} bytes do not replace {site}; at most {len(_NOPS) - 1} can")
        yield Alternative(address, features[feature], code[:size] + _NOPS[site - size])


def description(assembled: Assembled) -> str:
    """The content of entry.json: sizes, labels, alternatives and shared numbers, sorted so that a change reads as one."""
    content = {
        "base": f"{KERNEL_TEXT.start:#x}",
        "size": len(assembled.text),
        "symbols": {name: f"{address:#x}" for name, address in assembled.symbols.items()},
        "alternatives": [
            {"address": f"{each.address:#x}", "feature": each.feature, "code": each.code.hex()} for each in assembled.alternatives
        ],
        "constants": {name: f"{value:#x}" for name, value in constants().items()},
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write entry.bin and entry.json beside this file."""
    try:
        assembled = assemble()
    except AssembleError as error:
        print(error, file=sys.stderr)
        return 1

    TEXT_FILE.write_bytes(assembled.text)
    SYMBOLS_FILE.write_text(description(assembled), encoding="utf-8")
    numbers = f"{len(assembled.text)} bytes, {len(assembled.symbols)} symbols, {len(assembled.alternatives)} alternatives"
    print(f"{TEXT_FILE.name}: {numbers}", file=sys.stderr)
    return 0


def _constants_inc() -> str:
    numbers = "".join(f".set {name}, {value:#x}\n" for name, value in constants().items())
    stubs = "".join(f"interrupt_stub {vector:#x}\n" for vector in STUBS)
    recorders = "".join(f"recorder {name}\n" for name in HANDLERS if name not in ("schedule", "preempt_schedule_irq"))
    return f"{numbers}.macro interrupt_stubs\n{stubs}.endm\n.macro recorders\n{recorders}.endm\n"


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
