"""From bytes to an `Instruction`: iced-x86 decodes, the table of `instructions` says what each one does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from iced_x86 import (
    Code,
    CodeSize,
    Decoder,
    DecoderError,
    DecoderOptions,
    InstructionInfoFactory,
    MemorySizeExt,
    Mnemonic,
    OpAccess,
    OpKind,
    Register,
    RegisterExt,
)
from iced_x86 import Instruction as Decoded

from reference.bits import MASK16, MASK32, MASK64
from reference.faults import NotModelled
from reference.machine import DS, ES, FS, GS, Machine
from reference.operands import (
    BasedMemory,
    FarPointer,
    Gpr8,
    Gpr16,
    Gpr32,
    Gpr64,
    Immediate,
    Memory,
    Operand,
    SegmentedMemory,
    SegmentRegister,
    SystemRegister,
)

LONGEST: Final = 15
"""Bytes in the longest instruction (SDM Vol. 2A, 2.3.11)."""

_INFO: Final = InstructionInfoFactory()
_REWRITES: Final = (OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE)

_TRAP_BY_RESULT: Final = frozenset({Mnemonic.SYSCALL, Mnemonic.SYSRET, Mnemonic.SYSRETQ, Mnemonic.INTO})

OPERAND_SIZE: Final = 0x66
PREFIXES: Final = frozenset(bytes.fromhex("66 67 f2 f3 2e 36 3e 26 64 65 f0")) | frozenset(range(0x40, 0x50))
"""Legacy and REX prefixes (SDM Vol. 2A, 2.1.1 and 2.2.1)."""


class Dialect(NamedTuple):
    """What the meaning of bytes depends on: AMD or Intel, 64-bit mode or the 32 bits of compatibility mode."""

    amd: bool
    bits: int


Execute = Callable[[Machine, "Instruction", int], int]
"""What an instruction does: machine, instruction, address of the next one in memory; returns the next RIP."""


class Instruction:
    """One decoded instruction; nothing in it depends on the address it stands at."""

    __slots__ = (
        "bits",
        "code",
        "condition",
        "destination",
        "execute",
        "length",
        "mnemonic",
        "name",
        "operand_prefix",
        "operands",
        "plain",
        "repeat",
        "rewrites_memory",
        "slot",
        "source",
        "target",
        "traps_by_result",
    )

    def __init__(self, decoded: Decoded, execute: Execute, name: str) -> None:
        self.execute = execute
        self.name = name
        self.code: int = decoded.code
        self.mnemonic: int = decoded.mnemonic
        self.length: int = decoded.len
        self.operand_prefix = False
        """A 66 prefix stands before the opcode."""
        self.repeat: bool = decoded.is_string_instruction and decoded.has_rep_prefix
        """One execution is one of several iterations."""
        self.traps_by_result: bool = decoded.mnemonic in _TRAP_BY_RESULT
        """The single-step trap behind it depends on the TF that it leaves."""
        self.plain = not (self.repeat or self.traps_by_result)
        """Neither of the two: behind it only the flags that it began with matter."""
        self.rewrites_memory: bool = (
            decoded.op_count > 0 and decoded.op0_kind == OpKind.MEMORY and _INFO.info(decoded).op0_access in _REWRITES
        )
        """The first operand is in memory, and is read before it is written."""
        self.condition: int = decoded.condition_code - 1
        """Of Jcc, SETcc and CMOVcc: the low four bits of the opcode."""
        self.slot = abs(decoded.stack_pointer_increment)
        """Bytes that a push or pop moves RSP by."""
        self.target = _branch_target(decoded)
        """Of a near branch: its target relative to the first byte of this instruction."""
        self.operands: list[Operand] = [_operand(decoded, n) for n in range(decoded.op_count)]
        nothing = Immediate(8, 0)
        self.destination = self.operands[0] if self.operands else nothing
        if self.rewrites_memory and isinstance(self.destination, SegmentedMemory):
            self.destination.rewritten = True
        self.source = self.operands[1] if len(self.operands) > 1 else self.destination
        self.bits = self.destination.size * 8
        """Width of the destination."""


class InvalidEncoding(Exception):
    """No instruction of the mode begins with these bytes."""


class Truncated(Exception):
    """The bytes end inside an instruction."""


def decode(code: bytes, dialect: Dialect, lookup: Callable[[Decoded], tuple[Execute, str]]) -> Instruction:
    """Decode the first instruction in `code`; AMD's decoding differs in 66-prefixed near branches (APM Vol. 3, 1.2.7)."""
    decoder = Decoder(dialect.bits, code, DecoderOptions.AMD if dialect.amd else DecoderOptions.NONE)
    decoded = decoder.decode()
    if decoder.last_error == DecoderError.NO_MORE_BYTES:
        raise Truncated
    if decoder.last_error != DecoderError.NONE:
        # A longer instruction is #GP, an invalid one #UD: with the longest number of bytes they cannot be told apart here.
        if decoded.len == LONGEST:
            raise NotModelled("instruction longer than 15 bytes")
        if dialect.amd and _is_valid_without_prefixes(code, dialect):
            raise NotModelled("a prefix that AMD gives no meaning before this opcode")
        raise InvalidEncoding
    prefixes = bytes(itertools.takewhile(PREFIXES.__contains__, code))
    if decoded.mnemonic == Mnemonic.PAUSE and dialect.bits == 64 and _rex(prefixes) & _REX_B:
        # 41 90 is XCHG of R8 and RAX; neither manual says what F3 makes of it (SDM Vol. 2B, PAUSE and XCHG; APM Vol. 3).
        raise NotModelled("pause with REX.B")
    execute, name = lookup(decoded)
    instruction = Instruction(decoded, execute, name)
    instruction.operand_prefix = OPERAND_SIZE in prefixes
    if dialect.amd and decoded.code == Code.CALL_M1632 and _rex(prefixes) & _REX_W:
        instruction.slot = 16  # the pointer stays one of 32 bits, the pushes do not (APM Vol. 3, CALL (Far): READ_MEM.z, PUSH.v)
    return instruction


_REX_W, _REX_B = 8, 1


def _rex(prefixes: bytes) -> int:
    """The REX prefix, 0 without one: it counts only right before the opcode (SDM Vol. 2A, 2.2.1)."""
    return prefixes[-1] if prefixes and prefixes[-1] >> 4 == 4 else 0


def _is_valid_without_prefixes(code: bytes, dialect: Dialect) -> bool:
    """Whether a 66, F2 or F3 prefix is what makes an encoding invalid: Intel marks such opcodes NP, the APM says nothing (Vol. 3, 1.2)."""
    prefixes = bytes(itertools.takewhile(PREFIXES.__contains__, code))
    kept = prefixes.translate(None, bytes.fromhex("66f2f3"))
    return kept != prefixes and bool(Decoder(dialect.bits, kept + code[len(prefixes) :], DecoderOptions.AMD).decode())


def _branch_target(decoded: Decoded) -> int:
    if decoded.op_count == 0:
        return 0
    if decoded.op0_kind in (OpKind.NEAR_BRANCH64, OpKind.NEAR_BRANCH32):
        return int(decoded.near_branch_target)
    return int(decoded.near_branch16) if decoded.op0_kind == OpKind.NEAR_BRANCH16 else 0


_IMMEDIATE_SIZES: Final[dict[int, int]] = {
    OpKind.IMMEDIATE8: 1,
    OpKind.IMMEDIATE8_2ND: 1,
    OpKind.IMMEDIATE16: 2,
    OpKind.IMMEDIATE32: 4,
    OpKind.IMMEDIATE64: 8,
    OpKind.IMMEDIATE8TO16: 2,
    OpKind.IMMEDIATE8TO32: 4,
    OpKind.IMMEDIATE8TO64: 8,
    OpKind.IMMEDIATE32TO64: 8,
}
_BRANCH_SIZES: Final[dict[int, int]] = {OpKind.NEAR_BRANCH64: 8, OpKind.NEAR_BRANCH32: 4, OpKind.NEAR_BRANCH16: 2}
_SEGMENTS: Final[dict[int, int]] = {Register.ES: 0, Register.CS: 1, Register.SS: 2, Register.DS: DS, Register.FS: FS, Register.GS: GS}
_STACK_BASES: Final = (Register.RSP, Register.RBP, Register.ESP, Register.EBP)


def _operand(decoded: Decoded, number: int) -> Operand:
    kind = decoded.op_kind(number)
    if kind == OpKind.REGISTER:
        return _register(decoded.op_register(number))
    if kind in _IMMEDIATE_SIZES:
        return Immediate(_IMMEDIATE_SIZES[kind], decoded.immediate(number))
    if kind == OpKind.MEMORY:
        return _segmented_memory(decoded) if decoded.code_size == CodeSize.CODE32 else _memory(decoded)
    if kind in _BRANCH_SIZES:
        return Immediate(_BRANCH_SIZES[kind], 0)
    if kind == OpKind.FAR_BRANCH32:
        return FarPointer(6, decoded.far_branch_selector, decoded.far_branch32)
    if kind == OpKind.FAR_BRANCH16:
        return FarPointer(4, decoded.far_branch_selector, decoded.far_branch16)
    return _string_operand(decoded, kind)


def _register(register: Any) -> Operand:
    if register in _SEGMENTS:
        return SegmentRegister(_SEGMENTS[register])
    for first, last in ((Register.CR0, Register.CR15), (Register.DR0, Register.DR15)):
        if first <= register <= last:
            return SystemRegister(register - first)
    size = RegisterExt.size(register)
    number = RegisterExt.number(register)
    if size == 1:
        high = Register.AH <= register <= Register.BH
        return Gpr8(number - 4 if high else RegisterExt.full_register(register) - Register.RAX, 8 if high else 0)
    return {2: Gpr16, 4: Gpr32, 8: Gpr64}[size](number) if size in (2, 4, 8) else Operand(size)


def _memory(decoded: Decoded) -> Memory:
    base, index = decoded.memory_base, decoded.memory_index
    relative = base in (Register.RIP, Register.EIP)
    narrow = 4 in (RegisterExt.size(base), RegisterExt.size(index)) or (base == index == Register.NONE and decoded.memory_displ_size == 4)
    segment = _SEGMENTS.get(decoded.segment_prefix, -1)
    plain = base not in (Register.NONE, Register.RIP, Register.EIP) and index == Register.NONE and not narrow and segment < FS
    operand = (BasedMemory if plain else Memory)(
        size=MemorySizeExt.size(decoded.memory_size),
        base=-1 if relative or base == Register.NONE else RegisterExt.number(base),
        index=-1 if index == Register.NONE else RegisterExt.number(index),
        scale=decoded.memory_index_scale,
        displacement=decoded.memory_displacement,
        mask=MASK32 if narrow else MASK64,
        segment=segment if segment >= FS else -1,
        stack=base in _STACK_BASES and segment < FS,
    )
    operand.relative = relative
    return operand


def _segmented_memory(decoded: Decoded) -> Memory:
    """Memory outside 64-bit mode: 32-bit addresses, 16-bit ones with a 67 prefix (SDM Vol. 1, 3.3.7)."""
    base, index = decoded.memory_base, decoded.memory_index
    narrow = 2 in (RegisterExt.size(base), RegisterExt.size(index)) or (base == index == Register.NONE and decoded.memory_displ_size == 2)
    return SegmentedMemory(
        size=MemorySizeExt.size(decoded.memory_size),
        base=-1 if base == Register.NONE else RegisterExt.number(base),
        index=-1 if index == Register.NONE else RegisterExt.number(index),
        scale=decoded.memory_index_scale,
        displacement=decoded.memory_displacement,
        mask=MASK16 if narrow else MASK32,
        segment=_SEGMENTS[decoded.memory_segment],
    )


_STRING_BASES: Final[dict[int, tuple[Any, int]]] = {
    OpKind.MEMORY_SEG_RSI: (Register.RSI, MASK64),
    OpKind.MEMORY_SEG_ESI: (Register.RSI, MASK32),
    OpKind.MEMORY_ESRDI: (Register.RDI, MASK64),
    OpKind.MEMORY_ESEDI: (Register.RDI, MASK32),
}


def _string_operand(decoded: Decoded, kind: int) -> Operand:
    """[RSI] or [RDI] of a string instruction; only the source takes a segment override (SDM Vol. 2B, MOVS)."""
    if kind not in _STRING_BASES:
        return Operand(0)
    register, mask = _STRING_BASES[kind]
    if decoded.code_size == CodeSize.CODE32:
        segment = _SEGMENTS[decoded.memory_segment] if register == Register.RSI else ES
        return SegmentedMemory(MemorySizeExt.size(decoded.memory_size), RegisterExt.number(register), -1, 1, 0, mask, segment)
    segment = _SEGMENTS.get(decoded.segment_prefix, -1) if register == Register.RSI else ES
    number = RegisterExt.number(register)
    kind_of_memory = BasedMemory if mask == MASK64 and segment < FS else Memory
    return kind_of_memory(MemorySizeExt.size(decoded.memory_size), number, -1, 1, 0, mask, segment if segment >= FS else -1, stack=False)
