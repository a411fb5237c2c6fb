"""Instructions as text, with a target's symbols for addresses."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from iced_x86 import Decoder, Formatter, FormatterSyntax, Instruction, OpKind

from fuzzer.targets.layout import MAPPED
from fuzzer.targets.target import Target

LONGEST: Final = 15
_NEAR_BRANCHES: Final = frozenset({OpKind.NEAR_BRANCH16, OpKind.NEAR_BRANCH32, OpKind.NEAR_BRANCH64})
_PADDING: Final = b"\xcc\xcc"
_INT3: Final = b"\xcc"


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction; `symbol` is the label on its first byte, if there is one."""

    address: int
    code: bytes
    text: str
    symbol: str = ""


def _formatter() -> Formatter:
    formatter = Formatter(FormatterSyntax.INTEL)
    formatter.hex_prefix, formatter.hex_suffix = "0x", ""
    formatter.uppercase_hex = False
    formatter.space_after_operand_separator = True
    formatter.branch_leading_zeros = False
    return formatter


class Symbols:
    """Names for addresses: the labels of a target, and the regions of the machine where no label stands."""

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self._labels = {address: name for name, address in symbols.items()}
        self._addresses = sorted(self._labels)
        self._formatter = _formatter()

    def label(self, address: int) -> str:
        """The label at exactly this address, or nothing."""
        return self._labels.get(address, "")

    def name(self, address: int) -> str:
        """`label+0x3`, `user_code+0x10`, or the bare address."""
        region = next((region for region in MAPPED if region.start <= address < region.end), None)
        if region is None:
            return f"{address:#x}"
        position = bisect.bisect_right(self._addresses, address) - 1
        base = self._addresses[position] if position >= 0 else -1
        if base >= region.start:
            return _plus(self._labels[base], address - base)
        return _plus(region.name, address - region.start)

    def text(self, code: bytes, address: int, bits: int = 64) -> tuple[str, int]:
        """The instruction of 64- or 32-bit code that `code` begins with, and its length; `(bad)` of one byte where there is none."""
        instruction = Decoder(bits, code, ip=address).decode()
        if not instruction:
            return ("(bad)" if code else "(not mapped)"), 1
        return self._named(instruction, self._formatter.format(instruction)), instruction.len

    def _named(self, instruction: Instruction, text: str) -> str:
        if instruction.op_count and instruction.op0_kind in _NEAR_BRANCHES:
            target = instruction.near_branch_target
            return text.replace(f"{target:#x}", self.name(target))
        if instruction.is_ip_rel_memory_operand:
            return f"{text}  ; {self.name(instruction.ip_rel_memory_address)}"
        return text

    def lines(self, code: bytes, address: int) -> Iterator[Line]:
        """All instructions of `code`, one after the other."""
        offset = 0
        while offset < len(code):
            text, length = self.text(code[offset : offset + LONGEST], address + offset)
            yield Line(address + offset, code[offset : offset + length], text, self.label(address + offset))
            offset += length


def _plus(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name


def listing(target: Target) -> Iterator[Line]:
    """The entry code of a target, label by label, without the padding between."""
    from fuzzer.targets.layout import KERNEL_TEXT
    from fuzzer.targets.tables import FRAMES

    first = FRAMES[KERNEL_TEXT.name]
    text = b"".join(target.pages[first + number] for number in range(KERNEL_TEXT.pages)).rstrip(b"\0\xcc")
    symbols = Symbols(target.symbols)
    starts = sorted(address - KERNEL_TEXT.start for address in target.symbols.values() if KERNEL_TEXT.start <= address < KERNEL_TEXT.end)
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield from symbols.lines(_trimmed(text[start:end]), KERNEL_TEXT.start + start)


def _trimmed(code: bytes) -> bytes:
    """Code without a run of INT3 behind it; a single one may be an instruction."""
    return code.rstrip(_INT3) if code.endswith(_PADDING) else code
