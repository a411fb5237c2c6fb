"""From a source or object file to a linked ELF file, with GNU `as` and `ld` from PATH."""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from fuzzer.case_fields import CaseError
from fuzzer.targets.own import program
from fuzzer.targets.own.manifest import Manifest
from fuzzer.targets.own.placement import DATA_START, TEXT_START
from fuzzer.targets.own.recorder import stub_address

_SCRIPT: Final = f"""SECTIONS {{
  . = {TEXT_START:#x};
  .text : {{ *(.text .text.* .entry .entry.*) }}
  .rodata : {{ *(.rodata .rodata.*) }}
  . = {DATA_START:#x};
  .data : {{ *(.data .data.*) }}
  .bss : {{ *(.bss .bss.* COMMON) }}
  /DISCARD/ : {{ *(.comment .note .note.* .eh_frame) }}
}}
"""
_LINE: Final = re.compile(r"(\d+): Error: (.*)")
_FAR: Final = re.compile(r"relocation truncated to fit: (\w+) against (?:symbol )?[`']?([^'`]+?)'")


def linked(file: Path, manifest: Manifest) -> bytes:
    """The linked ELF file that `file` is or becomes: assembled if it is no ELF file, linked if it is an object."""
    data = _bytes(file)
    if not program.is_elf(data):
        data = _assembled(file)
    return _linked(data, file, manifest) if program.is_relocatable(data, str(file)) else data


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CaseError(f"{file}: cannot be read: {error.strerror}") from None


def _assembled(file: Path) -> bytes:
    _require("as", file)
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "own.o"
        _run(file, "as", "--64", "-I", str(file.parent), "-o", str(made), str(file))
        return made.read_bytes()


def _linked(data: bytes, file: Path, manifest: Manifest) -> bytes:
    _require("ld", file)
    recorders = {
        handler.symbol.text(): stub_address(number)
        for number, handler in enumerate(manifest.handlers, start=1)
        if handler.symbol.value in program.undefined(data, str(file))
    }
    _check_defined(data, file, manifest, recorders)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "own.o").write_bytes(data)
        (folder / "own.ld").write_text(_SCRIPT, encoding="utf-8")
        given = [f"--defsym={symbol}={address:#x}" for symbol, address in recorders.items()]
        options = (
            "-static",
            "-nostdlib",
            "--no-warn-rwx-segments",
            "--build-id=none",
            "-z",
            "noexecstack",
            "--nmagic",
            f"-e{TEXT_START:#x}",
        )
        made = folder / "own.elf"
        _run(file, "ld", *options, *given, "-T", str(folder / "own.ld"), "-o", str(made), str(folder / "own.o"))
        return made.read_bytes()


def _check_defined(data: bytes, file: Path, manifest: Manifest, recorders: dict[str, int]) -> None:
    for name in program.undefined(data, str(file)):
        if name not in recorders:
            near = difflib.get_close_matches(name, [handler.symbol.text() for handler in manifest.handlers], 1)
            meant = f'; did you mean the handler "{near[0]}"?' if near else ""
            way_out = f"define it, or name it in {manifest.origin} as [handlers.{name}], and a recorder takes its place"
            raise CaseError(f'{file}: "{name}" is used and not defined{meant or "; " + way_out}')


def _require(tool: str, file: Path) -> None:
    if shutil.which(tool) is None:
        raise CaseError(f"{file}: GNU {tool} not found on PATH; install binutils or give a linked ELF file")


def _run(file: Path, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CaseError(f"{file}: {_complaint(file, command[0], done.stderr)}")


def _complaint(file: Path, tool: str, output: str) -> str:
    """What the tool said first, in one line."""
    far = _FAR.search(output)
    if far:
        return f"ld: {far[2]} is too far away for {far[1]}; reach it by movabs, or by its offset in the per-CPU area through GS"
    lines = [line.strip() for line in output.splitlines()]
    errors = [line for line in lines if "rror: " in line] or [line for line in lines if not line.endswith("Assembler messages:")] or [tool]
    where = _LINE.match(errors[0].removeprefix(f"{file}:"))
    return f"line {where[1]}: {where[2]}" if where else f"{tool}: {errors[0]}"
