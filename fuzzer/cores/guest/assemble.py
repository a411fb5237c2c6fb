"""Assembles the harness with GNU binutils and writes what is committed: smm.bin, rom.bin and harness.json.

Only whoever changes the harness needs `as`, `ld`, `objcopy` and `nm`: `python -m fuzzer.cores.guest.assemble`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzzer.cores.core import CoreError
from fuzzer.cores.guest.mailbox import CONSTANTS, SMBASE

HERE: Final = Path(__file__).parent
TOOLS: Final = ("as", "ld", "objcopy", "nm")
ENTRY: Final = SMBASE + 0x8000
"""Where an SMI enters."""
SYMBOLS: Final = ("trampoline", "drain_interrupt", "drain_nmi")


@dataclass(frozen=True, slots=True)
class Harness:
    """The code at ENTRY, the ROM that starts the machine, and the addresses that the host has to know."""

    smm: bytes
    rom: bytes
    symbols: dict[str, int]


def missing_tools() -> list[str]:
    """The GNU binutils that are not on the path."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def assemble() -> Harness:
    """Both sections of harness.S."""
    if missing := missing_tools():
        raise CoreError(f"{', '.join(missing)}: not found; install GNU binutils to assemble harness.S")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "constants.inc").write_text("".join(f".set {key}, {value:#x}\n" for key, value in CONSTANTS.items()), encoding="utf-8")
        _run("as", "--64", "--fatal-warnings", "-I", name, "-o", str(work / "harness.o"), str(HERE / "harness.S"))
        place = (f"--section-start=.smm={ENTRY:#x}", "--section-start=.rom=0x7f0000", "-e", "entry")
        _run(
            "ld", "-static", "-nostdlib", "--build-id=none", "-z", "noexecstack", *place, "-o", str(work / "h.elf"), str(work / "harness.o")
        )
        smm, rom = (_section(work, section) for section in (".smm", ".rom"))
        addresses = {line.split()[2]: int(line.split()[0], 16) for line in _run("nm", str(work / "h.elf")).splitlines()}
    return Harness(smm, rom, {name: addresses[name] for name in SYMBOLS})


def _section(work: Path, name: str) -> bytes:
    out = work / f"section{name}"
    _run("objcopy", "-O", "binary", "--only-section", name, str(work / "h.elf"), str(out))
    return out.read_bytes()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise CoreError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def committed() -> Harness:
    """The harness as it was assembled by whoever changed it last."""
    symbols = json.loads((HERE / "harness.json").read_text(encoding="utf-8"))
    return Harness((HERE / "smm.bin").read_bytes(), (HERE / "rom.bin").read_bytes(), symbols)


def main() -> None:
    """Assemble and write."""
    harness = assemble()
    (HERE / "smm.bin").write_bytes(harness.smm)
    (HERE / "rom.bin").write_bytes(harness.rom)
    (HERE / "harness.json").write_text(json.dumps(harness.symbols, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
