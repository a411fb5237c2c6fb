"""An instruction as far as it matters for a cause: what signatures call it."""

from __future__ import annotations

import itertools

from iced_x86 import FlowControl, Mnemonic, OpKind, Register
from iced_x86 import Instruction as Decoded

from reference.decode import OPERAND_SIZE, PREFIXES
from reference.image import REGISTER_INDEX, Step
from reference.instructions import NAMES

FAR_RETURNS = (
    Mnemonic.RETF,
    Mnemonic.IRET,
    Mnemonic.IRETD,
    Mnemonic.IRETQ,
    Mnemonic.SYSRET,
    Mnemonic.SYSRETQ,
    Mnemonic.SYSEXIT,
    Mnemonic.SYSEXITQ,
)
_SEGMENT_LOADS: dict[int, str] = {Register.ES: "es", Register.SS: "ss", Register.DS: "ds", Register.FS: "fs", Register.GS: "gs"}
_MSR_NAMES = {
    0x174: "sysenter_cs", 0x175: "sysenter_esp", 0x176: "sysenter_eip", 0xC0000080: "efer", 0xC0000081: "star", 0xC0000082: "lstar",
    0xC0000083: "cstar", 0xC0000084: "sfmask", 0xC0000100: "fs_base", 0xC0000101: "gs_base", 0xC0000102: "kernel_gs_base",
}  # fmt: skip
_NEAR_BRANCHES = (FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH, FlowControl.CALL,
                  FlowControl.INDIRECT_CALL, FlowControl.RETURN)  # fmt: skip


def _has_prefix(code: bytes, prefix: int) -> bool:
    return prefix in itertools.takewhile(PREFIXES.__contains__, code)


def has_ignored_prefix(decoded: Decoded, code: bytes) -> bool:
    """A near branch with an operand-size prefix, which one vendor ignores and the other does not."""
    far = decoded.is_call_far_indirect or decoded.is_jmp_far_indirect or decoded.mnemonic in FAR_RETURNS
    return decoded.flow_control in _NEAR_BRANCHES and not far and _has_prefix(code, OPERAND_SIZE)


def is_wide_far_pointer(decoded: Decoded, code: bytes) -> bool:
    """A far pointer in memory with REX.W: 10 bytes on Intel, 6 on AMD."""
    loads = decoded.mnemonic in (Mnemonic.LSS, Mnemonic.LFS, Mnemonic.LGS)
    far = loads or decoded.is_call_far_indirect or decoded.is_jmp_far_indirect
    return far and any(prefix & 0xF8 == 0x48 for prefix in itertools.takewhile(PREFIXES.__contains__, code))


def instruction_name(decoded: Decoded, before: Step, code: bytes) -> str:
    """An instruction as far as it matters for a cause: mnemonic, operand size of stack forms, special registers, the MSR."""
    if decoded.is_invalid:
        return "LOCK where it is not allowed" if _has_prefix(code, 0xF0) else "undefined encoding"
    name = NAMES[decoded.mnemonic]
    if has_ignored_prefix(decoded, code):
        return f"near {'jcc' if decoded.flow_control == FlowControl.CONDITIONAL_BRANCH else name} with a 66 prefix"
    if decoded.mnemonic in (Mnemonic.RDMSR, Mnemonic.WRMSR):
        number = before.registers[REGISTER_INDEX["rcx"]] & 0xFFFF_FFFF
        return f"{name} {_MSR_NAMES.get(number, 'unknown')}"
    special = [_special(decoded.op_register(n), n) for n in range(decoded.op_count) if decoded.op_kind(n) == OpKind.REGISTER]
    suffix = " ".join(text for text in special if text)
    if decoded.is_call_far_indirect or decoded.is_jmp_far_indirect:
        name += " far"
    if is_wide_far_pointer(decoded, code):
        return f"{name} with REX.W"
    if decoded.stack_pointer_increment in (-2, 2):
        name += " (16-bit)"
    return f"{name} {suffix}" if suffix else name


def _special(register: int, position: int) -> str:
    way = "to" if position == 0 else "from"
    if register in _SEGMENT_LOADS:
        return f"{way} {_SEGMENT_LOADS[register]}"
    for first, last, letters in ((Register.CR0, Register.CR15, "cr"), (Register.DR0, Register.DR15, "dr")):
        if first <= register <= last:
            number = register - first
            return f"{way} {letters}{number if letters == 'cr' or number > 3 else 'n'}"
    return ""
