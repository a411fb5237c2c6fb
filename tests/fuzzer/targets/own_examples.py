"""A small manifest and ELF files made by hand, so that tests need no assembler."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from fuzzer.targets.own.manifest import read_manifest
from fuzzer.targets.own.placement import DATA_START, TEXT_START
from fuzzer.targets.own.program import read_program
from fuzzer.targets.own.target import Own, own_target

HOBBY = Path(__file__).parents[3] / "examples" / "own"

MANIFEST = """\
name = "tiny"

[system-calls]
syscall = "syscall_entry"

[percpu]
base = "cpu0"

[memory]
"cpu0+8" = "thread"

[stacks]
thread = { kind = "thread", size = 0x1000 }
nmi = { kind = "ist", ist = 1 }

[gates]
2 = { symbol = "nmi", ist = 1 }
14 = { symbol = "page_fault" }
0x30 = { symbol = "timer" }

[handlers]
do_all = { origin = "exception" }
"""

SYMBOLS = {
    "syscall_entry": TEXT_START,
    "nmi": TEXT_START + 0x10,
    "page_fault": TEXT_START + 0x20,
    "timer": TEXT_START + 0x30,
    "do_all": TEXT_START + 0x40,
    "cpu0": DATA_START,
}
TEXT = b"\x48\xcf".ljust(0x50, b"\xcc")

_HEADER = 64
_PROGRAM_HEADER = 56
_SECTION_HEADER = 64
_SYMBOL = 24


def elf(
    segments: Iterable[tuple[int, bytes, int]] = ((TEXT_START, TEXT, len(TEXT)), (DATA_START, bytes(16), 0x100)),
    symbols: dict[str, int] = SYMBOLS,
    *,
    kind: int = 2,
    machine: int = 62,
    sizes: Mapping[str, int] = MappingProxyType({}),
    undefined: tuple[str, ...] = (),
) -> bytes:
    """An ELF-64 file with these segments (address, bytes, size in memory) and global symbols (System V ABI, chapter 4 and 5)."""
    loads = list(segments)
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*symbols, *undefined))
    table = bytes(_SYMBOL)
    for name, value in symbols.items():
        table += struct.pack("<IBBHQQ", names.index(name.encode() + b"\0"), 0x10, 0, 0xFFF1, value, sizes.get(name, 0))
    for name in undefined:
        table += struct.pack("<IBBHQQ", names.index(name.encode() + b"\0"), 0x10, 0, 0, 0, 0)
    place = _HEADER + _PROGRAM_HEADER * len(loads)
    headers = b""
    body = b""
    for address, data, size in loads:
        headers += struct.pack("<IIQQQQQQ", 1, 7, place + len(body), address, address, len(data), size, 1)
        body += data
    symbols_at = place + len(body)
    names_at = symbols_at + len(table)
    sections_at = names_at + len(names)
    sections = bytes(_SECTION_HEADER)
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, symbols_at, len(table), 2, 1, 8, _SYMBOL)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    count = 3 if symbols or undefined else 0
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH",
        kind,
        machine,
        1,
        TEXT_START,
        _HEADER,
        sections_at,
        0,
        _HEADER,
        _PROGRAM_HEADER,
        len(loads),
        64,
        count,
        count and 2,
    )
    return head + headers + body + table + names + sections


def tiny(manifest: str = MANIFEST, data: bytes | None = None) -> Own:
    """The target of a manifest and an ELF file."""
    return own_target(read_manifest(manifest, "tiny.toml"), read_program(elf() if data is None else data, "tiny.elf"))


def hobby() -> Own:
    """The example, from its committed ELF file."""
    manifest = read_manifest((HOBBY / "hobby.toml").read_text(), "hobby.toml")
    return own_target(manifest, read_program((HOBBY / "hobby.elf").read_bytes(), "hobby.elf"))
