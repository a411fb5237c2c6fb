"""Changing one instruction of assembled entry code: found by its symbol and its text, so no assembler is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol

from iced_x86 import Decoder, FlowControl, Formatter, FormatterSyntax, Instruction, OpKind

from fuzzer.build import patched
from fuzzer.targets.layout import KERNEL_TEXT
from fuzzer.targets.tables import FRAMES
from fuzzer.targets.target import Target, patch

_NOP: Final = b"\x90"
_SHORT: Final = 2
"""Bytes of a branch with an 8-bit displacement."""
_NEAR_BRANCHES: Final = frozenset({OpKind.NEAR_BRANCH16, OpKind.NEAR_BRANCH32, OpKind.NEAR_BRANCH64})


class EditError(Exception):
    """The entry code has no such instruction, or no room for what should stand in its place."""


class Replacement(Protocol):
    """What stands in an instruction's place."""

    def code(self, instruction: Instruction, symbols: Mapping[str, int]) -> bytes:
        """The bytes; what remains of the old instruction becomes NOPs."""
        ...

    def words(self, text: str) -> str:
        """What is done to the instruction `text`, for people."""
        ...


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing: the step is left out."""

    def code(self, instruction: Instruction, symbols: Mapping[str, int]) -> bytes:
        """Only NOPs."""
        return b""

    def words(self, text: str) -> str:
        """What is done, for people."""
        return f"`{text}` dropped"


@dataclass(frozen=True, slots=True)
class Taken:
    """The branch without its condition."""

    def code(self, instruction: Instruction, symbols: Mapping[str, int]) -> bytes:
        """JMP to where the conditional branch would go (SDM Vol. 2A, JMP: EB cb, E9 cd)."""
        if instruction.flow_control != FlowControl.CONDITIONAL_BRANCH:
            raise EditError("only a conditional branch can be taken always")
        return _jump(0xEB, 0xE9, instruction, instruction.near_branch_target)

    def words(self, text: str) -> str:
        """What is done, for people."""
        return f"`{text}` always taken"


@dataclass(frozen=True, slots=True)
class If:
    """The same branch on another condition, by its number (SDM Vol. 1, B.1)."""

    condition: int
    text: str

    def code(self, instruction: Instruction, symbols: Mapping[str, int]) -> bytes:
        """Jcc rel8 or rel32 with the other condition (SDM Vol. 2A, Jcc: 70+cc cb, 0F 80+cc cd)."""
        if instruction.flow_control != FlowControl.CONDITIONAL_BRANCH:
            raise EditError("only a conditional branch has a condition")
        distance = instruction.near_branch_target - instruction.next_ip
        if instruction.len == _SHORT:
            return bytes([0x70 + self.condition, distance & 0xFF])
        return bytes([0x0F, 0x80 + self.condition]) + (distance & 0xFFFF_FFFF).to_bytes(4, "little")

    def words(self, text: str) -> str:
        """What is done, for people."""
        return f"`{text}` becomes `{self.text}`"


@dataclass(frozen=True, slots=True)
class Into:
    """The same jump or call, to another symbol."""

    symbol: str

    def code(self, instruction: Instruction, symbols: Mapping[str, int]) -> bytes:
        """CALL or JMP with another displacement (SDM Vol. 2A, CALL: E8 cd; JMP: EB cb, E9 cd)."""
        if instruction.flow_control == FlowControl.CALL:
            return _near(0xE8, instruction.ip, symbols[self.symbol])
        if instruction.flow_control == FlowControl.UNCONDITIONAL_BRANCH:
            return _jump(0xEB, 0xE9, instruction, symbols[self.symbol])
        raise EditError("only a call or a jump can go elsewhere")

    def words(self, text: str) -> str:
        """What is done, for people."""
        return f"`{text}` goes to `{self.symbol}`"


@dataclass(frozen=True, slots=True)
class Bytes:
    """Other bytes, at most as many; `text` says what they are."""

    hexadecimal: str
    text: str

    def code(self, instruction: Instruction, symbols: Mapping[str, int]) -> bytes:
        """The bytes as given."""
        return bytes.fromhex(self.hexadecimal)

    def words(self, text: str) -> str:
        """What is done, for people."""
        return f"`{text}` becomes `{self.text}`"


DROPPED: Final = Dropped()
TAKEN: Final = Taken()
SIGN: Final = If(0x8, "js")


@dataclass(frozen=True, slots=True)
class Place:
    """An instruction: the `nth` behind a label that begins with the words of `text`; in code as it is in `profile`."""

    symbol: str
    text: str
    nth: int = 0
    profile: str = ""

    def find(self, target: Target) -> Instruction:
        """The instruction; EditError if there is none."""
        matching = (one for one in behind(target, self.symbol, self.profile) if _begins(named(target, one), self.text))
        found = next(islice(matching, self.nth, None), None)
        if found is None:
            raise EditError(
                f"{target.name}: {self.symbol} has no instruction {self.text!r} number {self.nth}; see `entryfuzz targets show`"
            )
        return found


@dataclass(frozen=True, slots=True)
class Edit:
    """One instruction of the entry code replaced."""

    place: Place
    put: Replacement = DROPPED

    def apply(self, target: Target) -> Target:
        """The target with other bytes there."""
        instruction = self.place.find(target)
        code = self.put.code(instruction, target.symbols)
        if len(code) > instruction.len:
            raise EditError(f"{self.place.symbol}: {len(code)} bytes do not fit into {named(target, instruction)!r}")
        piece = patch(KERNEL_TEXT, instruction.ip - KERNEL_TEXT.start, code.ljust(instruction.len, _NOP))
        return replace(target, edits=(*target.edits, piece))

    def words(self, target: Target) -> str:
        """What is done, for people."""
        number = f" (number {self.place.nth + 1})" if self.place.nth else ""
        return f"`{self.place.symbol}`: {self.put.words(named(target, self.place.find(target)))}{number}"


def behind(target: Target, symbol: str, profile: str = "") -> Iterator[Instruction]:
    """The instructions from a label to the next one."""
    if symbol not in target.symbols:
        raise EditError(f"{target.name} has no symbol {symbol!r}; see `entryfuzz targets show {target.name}`")
    start = target.symbols[symbol]
    end = min((address for address in target.symbols.values() if address > start), default=KERNEL_TEXT.end)
    pages = patched(target.pages, target.alternatives.get(profile, ()))
    first = FRAMES[KERNEL_TEXT.name]
    text = b"".join(pages[first + number] for number in range(KERNEL_TEXT.pages))
    yield from Decoder(64, text[start - KERNEL_TEXT.start : end - KERNEL_TEXT.start], ip=start)


def named(target: Target, instruction: Instruction) -> str:
    """The text of an instruction, the target of a branch by its label."""
    text: str = _FORMATTER.format(instruction)
    if instruction.op_count and instruction.op0_kind in _NEAR_BRANCHES:
        return f"{text.split()[0]} {_label(target, instruction.near_branch_target)}"
    return text


def _label(target: Target, address: int) -> str:
    name, start = max(((name, start) for name, start in target.symbols.items() if start <= address), key=lambda item: item[1])
    return f"{name}+{address - start:#x}" if address > start else name


def _begins(text: str, words: str) -> bool:
    return text == words or text.startswith((f"{words} ", f"{words},"))


def _jump(short: int, near: int, instruction: Instruction, goal: int) -> bytes:
    distance = goal - (instruction.ip + 2)
    if -128 <= distance < 128:
        return bytes([short, distance & 0xFF])
    return _near(near, instruction.ip, goal)


def _near(opcode: int, address: int, goal: int) -> bytes:
    return bytes([opcode]) + (goal - (address + 5) & 0xFFFF_FFFF).to_bytes(4, "little")


def _formatter() -> Formatter:
    formatter = Formatter(FormatterSyntax.INTEL)
    formatter.hex_prefix, formatter.hex_suffix = "0x", ""
    formatter.uppercase_hex = False
    formatter.space_after_operand_separator = True
    return formatter


_FORMATTER: Final = _formatter()
