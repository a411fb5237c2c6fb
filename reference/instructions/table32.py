"""The table from instruction to rule in compatibility mode."""

from __future__ import annotations

from typing import Final

from iced_x86 import Code, Mnemonic, OpKind
from iced_x86 import Instruction as Decoded

from reference.decode import Execute
from reference.instructions import (
    AROUND_TS,
    BY_MNEMONIC,
    CONDITIONS,
    UNDOCUMENTED,
    branches,
    far,
    interrupts,
    legacy,
    misnamed,
    moves,
    name_of,
    named,
    not_modelled,
    stack,
    syscalls,
    system,
)

_M = Mnemonic
_C = Code

_UNLIKE_64: Final = (stack, branches, far, syscalls)
_OWN_32: Final[dict[int, Execute]] = {
    _M.PUSH: legacy.push,
    _M.POP: legacy.pop,
    _M.PUSHF: legacy.pushf,
    _M.PUSHFD: legacy.pushf,
    _M.POPF: legacy.popf,
    _M.POPFD: legacy.popf,
    _M.LEAVE: legacy.leave,
    _M.JMP: legacy.jmp,
    _M.CALL: legacy.call,
    _M.RET: legacy.ret,
    _M.JECXZ: legacy.jecxz,
    _M.JCXZ: legacy.jecxz,
    _M.RETF: legacy.retf,
    _M.IRET: legacy.iret,
    _M.IRETD: legacy.iret,
    _M.INTO: interrupts.into,
    _M.BOUND: interrupts.bound,
    _M.SYSCALL: syscalls.syscall_compatibility,
    _M.SYSRET: syscalls.sysret_compatibility,
    _M.SYSENTER: syscalls.sysenter,
    _M.SYSEXIT: syscalls.sysexit,
    _M.ENDBR32: interrupts.nop,
    **dict.fromkeys((_M.MOVSB, _M.MOVSW, _M.MOVSD), legacy.movs),
    **{getattr(_M, f"J{name}"): legacy.jcc for name in CONDITIONS},
    **dict.fromkeys((_M.LSS, _M.LFS, _M.LGS, _M.SGDT, _M.SIDT), not_modelled),
}
BY_MNEMONIC_32: Final[dict[int, Execute]] = {
    **{mnemonic: rule for mnemonic, rule in BY_MNEMONIC.items() if rule.__module__ not in [module.__name__ for module in _UNLIKE_64]},
    **AROUND_TS,
    **_OWN_32,
}
"""In compatibility mode: what reaches memory through its operands only is the same rule in both modes."""

BY_CODE_32: Final[dict[int, Execute]] = {
    **dict.fromkeys(named(_C, ("MOV_RM16_SREG", "MOV_R32M16_SREG")), moves.mov_from_segment),
    **dict.fromkeys(named(_C, ("MOV_SREG_",)), moves.mov_to_segment),
    _C.MOV_R32_CR: system.mov_from_control,
    _C.MOV_CR_R32: system.mov_to_control,
    _C.MOV_R32_DR: system.mov_from_debug,
    _C.MOV_DR_R32: system.mov_to_debug,
    **dict.fromkeys((_C.JMP_RM16, _C.JMP_RM32), legacy.jmp_indirect),
    **dict.fromkeys((_C.CALL_RM16, _C.CALL_RM32), legacy.call_indirect),
    **dict.fromkeys((_C.JMP_M1616, _C.JMP_M1632, _C.JMP_PTR1616, _C.JMP_PTR1632), legacy.jmp_far),
    **dict.fromkeys((_C.CALL_M1616, _C.CALL_M1632, _C.CALL_PTR1616, _C.CALL_PTR1632), not_modelled),
    **dict.fromkeys(UNDOCUMENTED, not_modelled),
}

_NARROW_STRINGS: Final = frozenset(named(OpKind, ("MEMORY_SEG_SI", "MEMORY_SEG_DI", "MEMORY_ESDI")))
_BIT_TESTS: Final = frozenset({_M.BT, _M.BTS, _M.BTR, _M.BTC})


def lookup32(decoded: Decoded) -> tuple[Execute, str]:
    """The rule of an instruction in compatibility mode. Strings addressed by SI and DI and bit tests in memory have none."""
    name = name_of(decoded)
    narrow = any(decoded.op_kind(number) in _NARROW_STRINGS for number in range(decoded.op_count))
    bit_string = decoded.mnemonic in _BIT_TESTS and decoded.op0_kind == OpKind.MEMORY
    if misnamed(decoded) or narrow or bit_string:
        return not_modelled, name
    return BY_CODE_32.get(decoded.code) or BY_MNEMONIC_32.get(decoded.mnemonic, not_modelled), name
