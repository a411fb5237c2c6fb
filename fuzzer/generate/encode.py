"""Random instructions of the modelled subset, encoded: one form of one instruction with operands that suit it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from iced_x86 import Code, Encoder, Instruction, OpCodeInfo, OpCodeOperandKind, OpKind, Register

from reference.instructions import BY_CODE, BY_MNEMONIC, VECTOR_MOVSD

_K = OpCodeOperandKind
_R = Register


def _registers(first: int) -> tuple[int, ...]:
    return tuple(range(first, first + 16))


_BYTES = (_R.AL, _R.CL, _R.DL, _R.BL, _R.AH, _R.CH, _R.SPL, _R.BPL, _R.SIL, _R.DIL, _R.R8L, _R.R15L)
_SEGMENTS = (_R.ES, _R.SS, _R.DS, _R.FS, _R.GS)
_REGISTER_KINDS: Final[dict[int, tuple[int, ...]]] = {
    _K.R8_REG: _BYTES,
    _K.R8_OPCODE: _BYTES,
    _K.R16_REG: _registers(_R.AX),
    _K.R16_RM: _registers(_R.AX),
    _K.R16_OPCODE: _registers(_R.AX),
    _K.R32_REG: _registers(_R.EAX),
    _K.R32_RM: _registers(_R.EAX),
    _K.R32_OPCODE: _registers(_R.EAX),
    _K.R64_REG: _registers(_R.RAX),
    _K.R64_RM: _registers(_R.RAX),
    _K.R64_OPCODE: _registers(_R.RAX),
    _K.SEG_REG: _SEGMENTS,
    _K.CR_REG: (_R.CR0, _R.CR2, _R.CR3, _R.CR4, _R.CR8),
    _K.DR_REG: tuple(range(_R.DR0, _R.DR7 + 1)),
    _K.AL: (_R.AL,),
    _K.CL: (_R.CL,),
    _K.AX: (_R.AX,),
    _K.EAX: (_R.EAX,),
    _K.RAX: (_R.RAX,),
    _K.FS: (_R.FS,),
    _K.GS: (_R.GS,),
}
_REGISTER_OR_MEMORY: Final[dict[int, tuple[int, ...]]] = {
    _K.R8_OR_MEM: _BYTES,
    _K.R16_OR_MEM: _registers(_R.AX),
    _K.R32_OR_MEM: _registers(_R.EAX),
    _K.R64_OR_MEM: _registers(_R.RAX),
}
_IMMEDIATES: Final[dict[int, tuple[Any, int]]] = {
    _K.IMM8: (OpKind.IMMEDIATE8, 8),
    _K.IMM8SEX16: (OpKind.IMMEDIATE8TO16, 8),
    _K.IMM8SEX32: (OpKind.IMMEDIATE8TO32, 8),
    _K.IMM8SEX64: (OpKind.IMMEDIATE8TO64, 8),
    _K.IMM16: (OpKind.IMMEDIATE16, 16),
    _K.IMM32: (OpKind.IMMEDIATE32, 32),
    _K.IMM32SEX64: (OpKind.IMMEDIATE32TO64, 32),
    _K.IMM64: (OpKind.IMMEDIATE64, 64),
    _K.IMM8_CONST_1: (OpKind.IMMEDIATE8, 0),
}
_BRANCHES: Final = (_K.BR64_1, _K.BR64_4, _K.BR16_1, _K.BR16_2)
_STRINGS: Final[dict[int, Any]] = {_K.SEG_RSI: OpKind.MEMORY_SEG_RSI, _K.ES_RDI: OpKind.MEMORY_ESRDI}


def _forms() -> dict[int, tuple[Any, ...]]:
    """Every 64-bit form of every modelled instruction that can be built here, by mnemonic."""
    forms: dict[int, list[Any]] = {}
    for name in dir(Code):
        code: Any = getattr(Code, name)
        if not name.isupper() or name.startswith(("VEX", "EVEX", "XOP", "MVEX")) or code in VECTOR_MOVSD:
            continue
        info = OpCodeInfo(code)
        if not info.mode64 or not (code in BY_CODE or info.mnemonic in BY_MNEMONIC):
            continue
        if all(_buildable(info.op_kind(n)) for n in range(info.op_count)):
            forms.setdefault(info.mnemonic, []).append(code)
    return {mnemonic: tuple(codes) for mnemonic, codes in forms.items()}


def _buildable(kind: int) -> bool:
    simple = kind in _REGISTER_KINDS or kind in _REGISTER_OR_MEMORY or kind in _IMMEDIATES or kind in _BRANCHES or kind in _STRINGS
    return simple or kind == _K.MEM


FORMS: Final = _forms()

MemoryPlace = Callable[[], tuple[Any, int, Any]]
"""Chooses where a memory operand points: (base register, displacement, segment prefix register or NONE)."""


def random_instruction(rng: Random, mnemonic: int, place: MemoryPlace) -> Instruction:
    """One form of `mnemonic` with random operands; memory operands stand where `place` says."""
    code = rng.choice(FORMS[mnemonic])
    info = OpCodeInfo(code)
    instruction = Instruction()
    instruction.code = code
    for n in range(info.op_count):
        _set_operand(rng, instruction, n, info.op_kind(n), place)
    if info.can_use_rep_prefix and rng.random() < 0.6:
        instruction.has_rep_prefix = True
    return instruction


def _set_operand(rng: Random, instruction: Instruction, n: int, kind: int, place: MemoryPlace) -> None:
    if kind in _REGISTER_OR_MEMORY and rng.random() < 0.5:
        _set_register(instruction, n, rng.choice(_REGISTER_OR_MEMORY[kind]))
    elif kind in _REGISTER_OR_MEMORY or kind == _K.MEM:
        _set_memory(rng, instruction, n, place)
    elif kind in _REGISTER_KINDS:
        _set_register(instruction, n, rng.choice(_REGISTER_KINDS[kind]))
    elif kind in _IMMEDIATES:
        op_kind, bits = _IMMEDIATES[kind] if n == 0 or instruction.op_kind(0) != OpKind.IMMEDIATE16 else (OpKind.IMMEDIATE8_2ND, 5)
        instruction.set_op_kind(n, op_kind)
        _set_immediate(rng, instruction, n, op_kind, bits)
    elif kind in _BRANCHES:
        instruction.set_op_kind(n, OpKind.NEAR_BRANCH16 if kind in (_K.BR16_1, _K.BR16_2) else OpKind.NEAR_BRANCH64)
    elif kind in _STRINGS:
        instruction.set_op_kind(n, _STRINGS[kind])
    else:
        raise ValueError(f"operand kind {kind}")


def _set_register(instruction: Instruction, n: int, register: Any) -> None:
    instruction.set_op_kind(n, OpKind.REGISTER)
    instruction.set_op_register(n, register)


def _set_memory(rng: Random, instruction: Instruction, n: int, place: MemoryPlace) -> None:
    base, displacement, segment = place()
    instruction.set_op_kind(n, OpKind.MEMORY)
    instruction.memory_base = base
    instruction.memory_displacement = displacement & 0xFFFF_FFFF_FFFF_FFFF
    instruction.memory_displ_size = 1 if -128 <= displacement < 128 else 4
    instruction.memory_index_scale = 1
    instruction.segment_prefix = segment


def _set_immediate(rng: Random, instruction: Instruction, n: int, kind: int, bits: int) -> None:
    value = rng.choice((0, 1, 3, 8, 0x10, rng.getrandbits(bits) if bits else 1)) & (1 << bits) - 1 if bits else 1
    if kind in (OpKind.IMMEDIATE8TO16, OpKind.IMMEDIATE8TO32, OpKind.IMMEDIATE8TO64) and value >> 7:
        value |= 0xFFFF_FFFF_FFFF_FF00
    if kind == OpKind.IMMEDIATE32TO64 and value >> 31:
        value |= 0xFFFF_FFFF_0000_0000
    instruction.set_immediate_u64(n, value)


def encode(instruction: Instruction, address: int) -> bytes | None:
    """The bytes of an instruction at `address`; None where these operands have no encoding together."""
    encoder = Encoder(64)
    try:
        encoder.encode(instruction, address)
    except ValueError:
        return None
    return encoder.take_buffer()
