"""Entry code as it comes out of an ELF file: bytes at addresses, and symbols (System V ABI, ELF-64)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.construct.lib.container import Container
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Symbol, SymbolTableSection

from fuzzer.case_fields import CaseError

_NAMED: Final = frozenset({"STT_NOTYPE", "STT_FUNC", "STT_OBJECT"})
_GLOBAL: Final = frozenset({"STB_GLOBAL", "STB_WEAK"})


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes that the loader puts at an address; `size` counts the zeros behind them too."""

    address: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        """The address just past the segment."""
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class Program:
    """A linked program."""

    origin: str
    segments: tuple[Segment, ...]
    symbols: Mapping[str, int]
    sizes: Mapping[str, int]
    """Bytes of the functions whose size the file tells."""

    def extent(self, name: str) -> int:
        """The bytes of a function, up to the next symbol where the file does not tell."""
        following = [address for address in self.symbols.values() if address > self.symbols[name]]
        return self.sizes.get(name) or min(following, default=self.symbols[name] + 1) - self.symbols[name]


def is_elf(data: bytes) -> bool:
    """Whether `data` begins as every ELF file does."""
    return data.startswith(b"\x7fELF")


@contextmanager
def _readable(origin: str) -> Iterator[None]:
    """Damaged files, which show wherever something is read, as a CaseError."""
    try:
        yield
    except (ELFError, ValueError, OverflowError, MemoryError) as error:
        raise CaseError(f"{origin}: not an ELF file that can be read: {' '.join(str(error).split()) or 'it is damaged'}") from None


def is_relocatable(data: bytes, origin: str) -> bool:
    """Whether an ELF file still has to be linked; CaseError for what is no x86-64 program at all."""
    with _readable(origin):
        return str(_open(data, origin).header.e_type) == "ET_REL"


def undefined(data: bytes, origin: str) -> list[str]:
    """The names that a relocatable file uses and does not define, sorted."""
    with _readable(origin):
        return _undefined(data, origin)


def _undefined(data: bytes, origin: str) -> list[str]:
    return sorted({symbol.name for symbol in _symbols(_open(data, origin)) if symbol.name and symbol["st_shndx"] == "SHN_UNDEF"})


def read_program(data: bytes, origin: str) -> Program:
    """The program of a linked ELF file."""
    with _readable(origin):
        return _program(data, origin)


def _program(data: bytes, origin: str) -> Program:
    elf = _open(data, origin)
    if elf.header.e_type != "ET_EXEC":
        raise CaseError(f"{origin}: not linked to fixed addresses ({elf.header.e_type}); link it with -static -no-pie")
    headers = elf.header.e_phoff + elf.header.e_phnum * elf.header.e_phentsize
    segments = tuple(
        Segment(segment.header.p_vaddr, segment.data(), segment.header.p_memsz)
        for segment in elf.iter_segments("PT_LOAD")
        if segment.header.p_memsz and not _only_headers(segment.header, headers)
    )
    if not segments:
        raise CaseError(f"{origin}: nothing to load: it has no PT_LOAD segment")
    named = [symbol for symbol in _symbols(elf) if symbol.name and symbol["st_shndx"] != "SHN_UNDEF"]
    if not named:
        raise CaseError(f"{origin}: no symbols, and the manifest names code by them; give a file that was not stripped")
    symbols = {symbol.name: symbol["st_value"] for symbol in sorted(named, key=_rank) if symbol["st_info"]["type"] in _NAMED}
    return Program(origin, segments, dict(sorted(symbols.items())), {symbol.name: symbol["st_size"] for symbol in named})


def _only_headers(segment: Container, headers: int) -> bool:
    """Whether a segment loads nothing but the headers of the file, which `ld` puts before the code where there is room."""
    return bool(segment.p_offset + segment.p_filesz <= headers and segment.p_memsz == segment.p_filesz)


def _rank(symbol: Symbol) -> bool:
    """Global names last, so that they win over local ones."""
    return symbol["st_info"]["bind"] in _GLOBAL


def _open(data: bytes, origin: str) -> ELFFile:
    elf = ELFFile(io.BytesIO(data))
    machine, bits = elf.header.e_machine, elf.elfclass
    if (machine, bits) != ("EM_X86_64", 64):
        raise CaseError(f"{origin}: made for {machine} with {bits} bits; entry code is x86-64")
    return elf


def _symbols(elf: ELFFile) -> Iterator[Symbol]:
    for section in elf.iter_sections():
        if isinstance(section, SymbolTableSection) and section.header.sh_type == "SHT_SYMTAB":
            yield from section.iter_symbols()
