"""The table from instruction to rule: everything the specification models is a row here."""

from __future__ import annotations

from typing import Final

from iced_x86 import Code, Mnemonic
from iced_x86 import Instruction as Decoded

from reference.decode import Execute, Instruction
from reference.faults import NotModelled
from reference.instructions import (
    arithmetic,
    branches,
    coprocessor,
    far,
    flags,
    interrupts,
    moves,
    shifts,
    stack,
    strings,
    syscalls,
    system,
    tables,
)
from reference.machine import Machine

_M = Mnemonic
_C = Code


def named(enumeration: object, prefixes: tuple[str, ...]) -> list[int]:
    """The members of an enumeration of iced's whose names begin so."""
    return [value for name, value in vars(enumeration).items() if name.startswith(prefixes) and isinstance(value, int)]


CONDITIONS = ("O", "NO", "B", "AE", "E", "NE", "BE", "A", "S", "NS", "P", "NP", "L", "GE", "LE", "G")

BY_MNEMONIC: Final[dict[int, Execute]] = {
    _M.MOV: moves.mov,
    _M.MOVZX: moves.movzx,
    _M.MOVSX: moves.movsx,
    _M.MOVSXD: moves.movsx,
    _M.LEA: moves.lea,
    _M.XCHG: moves.xchg,
    _M.LSS: moves.load_far_pointer,
    _M.LFS: moves.load_far_pointer,
    _M.LGS: moves.load_far_pointer,
    _M.ADD: arithmetic.add,
    _M.ADC: arithmetic.adc,
    _M.SUB: arithmetic.sub,
    _M.SBB: arithmetic.sbb,
    _M.CMP: arithmetic.cmp,
    _M.AND: arithmetic.and_,
    _M.OR: arithmetic.or_,
    _M.XOR: arithmetic.xor,
    _M.TEST: arithmetic.test,
    _M.INC: arithmetic.inc,
    _M.DEC: arithmetic.dec,
    _M.NEG: arithmetic.neg,
    _M.NOT: arithmetic.not_,
    _M.MUL: arithmetic.mul,
    _M.IMUL: arithmetic.imul,
    _M.DIV: arithmetic.div,
    _M.IDIV: arithmetic.idiv,
    _M.CBW: arithmetic.extend_accumulator,
    _M.CWDE: arithmetic.extend_accumulator,
    _M.CDQE: arithmetic.extend_accumulator,
    _M.CWD: arithmetic.extend_into_rdx,
    _M.CDQ: arithmetic.extend_into_rdx,
    _M.CQO: arithmetic.extend_into_rdx,
    _M.SHL: shifts.shl,
    _M.SAL: shifts.shl,
    _M.SHR: shifts.shr,
    _M.SAR: shifts.sar,
    _M.ROL: shifts.rol,
    _M.ROR: shifts.ror,
    _M.BT: shifts.bt,
    _M.BTS: shifts.bts,
    _M.BTR: shifts.btr,
    _M.BTC: shifts.btc,
    _M.PUSH: stack.push,
    _M.POP: stack.pop,
    _M.PUSHF: stack.pushf,
    _M.PUSHFQ: stack.pushf,
    _M.POPF: stack.popf,
    _M.POPFQ: stack.popf,
    _M.ENTER: stack.enter,
    _M.LEAVE: stack.leave,
    _M.JMP: branches.jmp,
    _M.CALL: branches.call,
    _M.RET: branches.ret,
    _M.JRCXZ: branches.jrcxz,
    _M.JECXZ: branches.jrcxz,
    _M.IRET: far.iret,
    _M.IRETD: far.iret,
    _M.IRETQ: far.iret,
    _M.RETF: far.retf,
    _M.SYSCALL: syscalls.syscall,
    _M.SYSRET: syscalls.sysret,
    _M.SYSRETQ: syscalls.sysret,
    _M.SYSENTER: syscalls.sysenter,
    _M.SYSEXIT: syscalls.sysexit,
    _M.SYSEXITQ: syscalls.sysexit,
    _M.INT: interrupts.int_n,
    _M.INT3: interrupts.int3,
    _M.INT1: interrupts.int1,
    _M.UD0: interrupts.ud,
    _M.UD1: interrupts.ud,
    _M.UD2: interrupts.ud,
    _M.HLT: interrupts.hlt,
    _M.NOP: interrupts.nop,
    _M.PAUSE: interrupts.nop,
    _M.ENDBR64: interrupts.nop,
    _M.LFENCE: interrupts.nop,
    _M.MFENCE: interrupts.nop,
    _M.SFENCE: interrupts.nop,
    _M.CLC: flags.clc,
    _M.STC: flags.stc,
    _M.CMC: flags.cmc,
    _M.CLD: flags.cld,
    _M.STD: flags.std,
    _M.CLI: flags.cli,
    _M.STI: flags.sti,
    _M.CLAC: flags.clac,
    _M.STAC: flags.stac,
    _M.SWAPGS: system.swapgs,
    _M.RDMSR: system.rdmsr,
    _M.WRMSR: system.wrmsr,
    _M.RDFSBASE: system.rd_base,
    _M.RDGSBASE: system.rd_base,
    _M.WRFSBASE: system.wr_base,
    _M.WRGSBASE: system.wr_base,
    _M.SMSW: system.smsw,
    _M.INVLPG: system.invlpg,
    _M.INVPCID: system.invpcid,
    _M.CPUID: system.cpuid,
    _M.LGDT: tables.lgdt,
    _M.LIDT: tables.lidt,
    _M.SGDT: tables.store_table,
    _M.SIDT: tables.store_table,
    _M.SLDT: tables.sldt,
    _M.STR: tables.str_,
    _M.LLDT: tables.lldt,
    _M.LTR: tables.ltr,
    _M.LAR: tables.lar,
    _M.LSL: tables.lsl,
    _M.VERR: tables.verr,
    _M.VERW: tables.verw,
    _M.MOVSB: strings.movs,
    _M.MOVSW: strings.movs,
    _M.MOVSD: strings.movs,
    _M.MOVSQ: strings.movs,
    _M.STOSB: strings.stos,
    _M.STOSW: strings.stos,
    _M.STOSD: strings.stos,
    _M.STOSQ: strings.stos,
    **{getattr(_M, f"J{name}"): branches.jcc for name in CONDITIONS},
    **{getattr(_M, f"SET{name}"): moves.setcc for name in CONDITIONS},
    **{getattr(_M, f"CMOV{name}"): moves.cmovcc for name in CONDITIONS},
}

AROUND_TS: Final[dict[int, Execute]] = {
    _M.CLTS: system.clts,
    _M.FNOP: coprocessor.x87,
    _M.FNINIT: coprocessor.x87,
    _M.WAIT: coprocessor.wait,
    _M.MOVAPS: coprocessor.sse,
    _M.MOVUPS: coprocessor.sse,
}
"""What CR0.TS is there for: enough of it to provoke a #NM and to handle it. Without the exception most have no rule."""

UNDOCUMENTED: Final = (_C.TEST_RM8_IMM8_F6R1, _C.TEST_RM16_IMM16_F7R1, _C.TEST_RM32_IMM32_F7R1, _C.TEST_RM64_IMM32_F7R1)


def not_modelled(m: Machine, i: Instruction, end: int) -> int:
    """Leave the model: the specification never guesses."""
    raise NotModelled(i.name)


BY_CODE: Final[dict[int, Execute]] = {
    **dict.fromkeys(named(_C, ("MOV_RM16_SREG", "MOV_R32M16_SREG", "MOV_R64M16_SREG")), moves.mov_from_segment),
    **dict.fromkeys(named(_C, ("MOV_SREG_",)), moves.mov_to_segment),
    _C.MOV_R64_CR: system.mov_from_control,
    _C.MOV_CR_R64: system.mov_to_control,
    _C.MOV_R64_DR: system.mov_from_debug,
    _C.MOV_DR_R64: system.mov_to_debug,
    **dict.fromkeys((_C.JMP_RM16, _C.JMP_RM32, _C.JMP_RM64), branches.jmp_indirect),
    **dict.fromkeys((_C.CALL_RM16, _C.CALL_RM32, _C.CALL_RM64), branches.call_indirect),
    **dict.fromkeys((_C.JMP_M1616, _C.JMP_M1632, _C.JMP_M1664), far.jmp_far),
    **dict.fromkeys((_C.CALL_M1616, _C.CALL_M1632, _C.CALL_M1664), far.call_far),
    **dict.fromkeys(UNDOCUMENTED, not_modelled),
}
"""Forms whose rule is not that of their mnemonic's other forms; F6 /1 and F7 /1 are in no Intel manual."""

VECTOR_MOVSD: Final = frozenset(named(_C, ("MOVSD_XMM", "VEX_VMOVSD")))
"""MOVSD is also the name of an SSE2 instruction. REPNE is defined for CMPS and SCAS only (SDM Vol. 2B, REP)."""

_SIZED_NAMES: Final = {
    **dict.fromkeys((_C.RETFW, _C.RETFW_IMM16), "retfw"),
    **dict.fromkeys((_C.RETFD, _C.RETFD_IMM16), "retf"),
    **dict.fromkeys((_C.RETFQ, _C.RETFQ_IMM16), "retfq"),
    **dict.fromkeys((_C.RETNW, _C.RETNW_IMM16), "retw"),
    **dict.fromkeys((_C.ENTERW_IMM16_IMM8,), "enterw"),
    **dict.fromkeys((_C.LEAVEW,), "leavew"),
}
"""Names that tell apart forms which differ in operand size only."""

NAMES: Final = {value: name.lower() for name, value in vars(Mnemonic).items() if isinstance(value, int) and name.isupper()}


def name_of(decoded: Decoded) -> str:
    """What an instruction is called where its rule and its form have to be told apart."""
    return _SIZED_NAMES.get(decoded.code) or NAMES[decoded.mnemonic]


def misnamed(decoded: Decoded) -> bool:
    """It shares a mnemonic with instructions whose rule is not its own."""
    return decoded.code in VECTOR_MOVSD or (decoded.is_string_instruction and decoded.has_repne_prefix)


def lookup(decoded: Decoded) -> tuple[Execute, str]:
    """The rule of a decoded instruction and its name; what has no rule ends the case as not modelled."""
    name = name_of(decoded)
    if misnamed(decoded):
        return not_modelled, name
    rule = BY_CODE.get(decoded.code) or BY_MNEMONIC.get(decoded.mnemonic) or AROUND_TS.get(decoded.mnemonic, not_modelled)
    return rule, name
