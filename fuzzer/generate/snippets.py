"""Cases for the target `snippets`: 1 to 8 instructions, and registers and memory that make them meet their rules."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any, Final

from iced_x86 import Instruction, Mnemonic, OpKind, Register, RegisterExt

from fuzzer.case import Case, canonical
from fuzzer.generate import values
from fuzzer.generate.encode import FORMS, encode, random_instruction
from fuzzer.generate.machine import arrange_machine, random_event
from fuzzer.targets import layout
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.snippets import CODE_REGIONS, END
from fuzzer.targets.target import Patch, default_cr4, patch
from reference.image import GPRS
from reference.profiles import PROFILES

_M = Mnemonic

GROUPS: Final[tuple[tuple[int, tuple[int, ...]], ...]] = (
    (6, (_M.SWAPGS, _M.RDMSR, _M.WRMSR, _M.WRMSR, _M.RDGSBASE, _M.WRGSBASE, _M.RDFSBASE, _M.WRFSBASE)),
    (6, (_M.IRETQ, _M.IRETQ, _M.IRETD, _M.IRET, _M.RETF, _M.SYSRETQ, _M.SYSEXITQ, _M.SYSCALL, _M.SYSENTER, _M.RET)),
    (5, (_M.PUSH, _M.POP, _M.PUSHFQ, _M.POPFQ, _M.PUSHF, _M.POPF, _M.ENTER, _M.LEAVE, _M.CALL, _M.XCHG)),
    (5, (_M.MOV, _M.LSS, _M.LFS, _M.LGS, _M.LAR, _M.LSL, _M.VERR, _M.VERW, _M.LLDT, _M.LTR, _M.SLDT, _M.STR, _M.SMSW)),
    (3, (_M.LGDT, _M.LIDT, _M.SGDT, _M.SIDT, _M.INVLPG, _M.INVPCID, _M.CPUID, _M.HLT)),
    (3, (_M.CLI, _M.STI, _M.CLD, _M.STD, _M.CLAC, _M.STAC, _M.CLC, _M.STC, _M.CMC)),
    (2, (_M.INT, _M.INT3, _M.INT1, _M.UD2, _M.JMP, _M.CALL, _M.JRCXZ, _M.JE, _M.JNE)),
    (2, (_M.MOVSQ, _M.MOVSB, _M.STOSQ, _M.STOSD)),
    (4, tuple(FORMS)),
)
"""(weight, instructions): what touches GS, the stack, segments, flags and privilege comes often, everything modelled at times."""


class Draft:
    """A snippet in the making: code, the registers it starts with, memory, and the level it runs at."""

    def __init__(self, rng: Random, scenario: str, profile: str) -> None:
        self.rng = rng
        self.scenario = scenario
        self.profile = PROFILES[profile]
        self.cpl = TARGETS["snippets"].scenario(scenario).cpl
        self.code = b""
        self.registers: dict[str, int] = {}
        self.memory: list[Patch] = []

    def set_register(self, register: Any, value: int) -> None:
        """Start with `value` in the full register behind an iced register, if it is a general one."""
        full = RegisterExt.full_register(register)
        if Register.RAX <= full <= Register.R15:
            self.registers[GPRS[full - Register.RAX]] = value

    def put(self, address: int, data: bytes) -> None:
        """Bytes at a linear address, where it lies in a region that cases may change."""
        for region in (layout.USER_DATA, layout.USER_STACK, layout.KERNEL_DATA, layout.THREAD_STACK):
            if region.start <= address < region.end:
                self.memory.append(patch(region, address - region.start, data[: region.end - address]))

    @property
    def stack(self) -> int:
        """RSP at the start."""
        if "rsp" not in self.registers:
            self.registers["rsp"] = values.stack_pointer(self.rng, self.cpl)
        return self.registers["rsp"]

    def push_words(self, size: int, words: list[int]) -> None:
        """What stands at RSP and above."""
        self.put(self.stack, b"".join((word & (1 << 8 * size) - 1).to_bytes(size, "little") for word in words))


def generate(rng: Random, profile: str) -> Case:
    """One case: a scenario, its instructions, and a machine around them."""
    return generate_in(rng, profile, rng.choices(list(CODE_REGIONS), weights=(8, 8, 3, 1))[0])


def generate_in(rng: Random, profile: str, scenario: str) -> Case:
    """One case of a scenario."""
    draft = Draft(rng, scenario, profile)
    region = CODE_REGIONS[scenario]
    for name in GPRS:
        if rng.random() < 0.7:
            draft.registers[name] = values.general(rng, draft.cpl)
    draft.registers["rsp"] = values.stack_pointer(rng, draft.cpl)
    count = rng.choices((1, 2, 3, 4, 6, 8), weights=(6, 4, 3, 2, 1, 1))[0]
    for _ in range(count):
        _add_instruction(draft, region.start + len(draft.code))
    start = _place_code(draft, region)
    registers, memory = arrange_machine(rng, draft.profile, draft.cpl)
    events = tuple(random_event(rng, count + 2) for _ in range(rng.choices((0, 1, 2), weights=(13, 6, 1))[0]))
    patches = (*draft.memory, patch(region, start - region.start, draft.code), *memory)
    everything = {**registers, **draft.registers, "rip": start}
    return canonical(Case("snippets", scenario, profile, tuple(everything.items()), patches, events))


def _place_code(draft: Draft, region: layout.Region) -> int:
    """End the snippet with the ending interrupt; on the edge page it may also run off the end of the page instead."""
    if draft.scenario != "user-edge":
        draft.code += END
        return region.start
    if draft.rng.random() < 0.5 or not draft.code:
        draft.code += END
    return region.end - len(draft.code)


def _add_instruction(draft: Draft, address: int) -> None:
    rng = draft.rng
    group = rng.choices(GROUPS, weights=[weight for weight, _ in GROUPS])[0][1]
    mnemonic = rng.choice(group)
    target = values.pointer(rng, draft.cpl)
    instruction = random_instruction(rng, mnemonic, lambda: _memory_place(draft, target))
    prepare = PREPARATIONS.get(mnemonic)
    if prepare is not None:
        prepare(draft, instruction)
    if instruction.op_count and instruction.op0_kind in (OpKind.NEAR_BRANCH16, OpKind.NEAR_BRANCH64):
        instruction.near_branch64 = address + rng.choice((2, 3, 5, 6, 8, 16, -16, 0x7000))
    code = encode(instruction, address)
    if code is not None:
        draft.code += _prefix(rng) + code


def _prefix(rng: Random) -> bytes:
    """At times a prefix more than the instruction needs."""
    return bytes([rng.choice((0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x64, 0x65, 0xF0, 0x40))]) if rng.random() < 0.04 else b""


_BASES = (Register.RAX, Register.RBX, Register.RSI, Register.RDI, Register.R8, Register.R12, Register.RBP)


def _memory_place(draft: Draft, target: int) -> tuple[int, int, int]:
    """Where a memory operand points: mostly `target` by a base register of its own, at times the stack or GS and FS."""
    rng = draft.rng
    kind = rng.random()
    if kind < 0.2:
        return Register.RSP, rng.choice((0, 8, -8, 16, 0x40)), Register.NONE
    if kind < 0.3:
        return rng.choice(_BASES), rng.choice((0, 8, 0x100)), rng.choice((Register.GS, Register.FS))
    base, displacement = rng.choice(_BASES), rng.choice((0, 0, 8, -8, 0x40))
    draft.set_register(base, target - displacement & 0xFFFF_FFFF_FFFF_FFFF)
    return base, displacement, Register.NONE


def _operand_value(draft: Draft, instruction: Instruction, operand: int, value: int, size: int = 8) -> None:
    """Make an operand hold `value` at the start: its register, or the memory that its base register points to."""
    if instruction.op_kind(operand) == OpKind.REGISTER:
        draft.set_register(instruction.op_register(operand), value)
    elif instruction.op_kind(operand) == OpKind.MEMORY:
        base = instruction.memory_base
        name = GPRS[base - Register.RAX] if Register.RAX <= base <= Register.R15 else None
        if name in draft.registers and instruction.segment_prefix == Register.NONE:
            place = draft.registers[name] + _signed(instruction.memory_displacement)
            draft.put(place, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _msr(draft: Draft, instruction: Instruction) -> None:
    number = draft.rng.choice(values.MSR_NUMBERS)
    value = values.efer(draft.rng) if number == 0xC000_0080 else values.address(draft.rng)
    draft.registers |= {"rcx": number, "rax": value & 0xFFFF_FFFF, "rdx": value >> 32}


def _base_write(draft: Draft, instruction: Instruction) -> None:
    _operand_value(draft, instruction, 0, values.address(draft.rng))


def _frame(draft: Draft, instruction: Instruction) -> None:
    rng = draft.rng
    size = {Mnemonic.IRETQ: 8, Mnemonic.IRETD: 4, Mnemonic.IRET: 2}[instruction.mnemonic]
    code = values.code_selector(rng)
    level = code & 3
    data = values.data_selector(rng) if rng.random() < 0.4 else (layout.USER_DS if level == 3 else layout.KERNEL_DS)
    stack = values.stack_pointer(rng, level) if rng.random() < 0.8 else values.address(rng)
    draft.push_words(size, [_return_address(draft, level), code, values.rflags(rng), stack, data])


def _return_address(draft: Draft, level: int) -> int:
    if draft.rng.random() < 0.3:
        return values.address(draft.rng)
    region = layout.USER_CODE if level == 3 else layout.KERNEL_CODE
    return region.start + 0x400 + draft.rng.randrange(16)


def _far_frame(draft: Draft, instruction: Instruction) -> None:
    rng = draft.rng
    code = values.code_selector(rng)
    words = [_return_address(draft, code & 3), code, values.stack_pointer(rng, code & 3), values.data_selector(rng)]
    draft.push_words(max(abs(instruction.stack_pointer_increment) // 2, 2), words)


def _near_return(draft: Draft, instruction: Instruction) -> None:
    draft.push_words(8, [_return_address(draft, draft.cpl)])


def _fast_return(draft: Draft, instruction: Instruction) -> None:
    rng = draft.rng
    draft.registers["rcx"] = _return_address(draft, 3) if instruction.mnemonic != Mnemonic.SYSEXITQ else values.stack_pointer(rng, 3)
    draft.registers["rdx"] = _return_address(draft, 3)
    draft.registers["r11"] = values.rflags(rng)


def _flags_image(draft: Draft, instruction: Instruction) -> None:
    draft.push_words(8, [values.rflags(draft.rng)])


def _pop(draft: Draft, instruction: Instruction) -> None:
    draft.push_words(8, [values.selector(draft.rng) if draft.rng.random() < 0.7 else values.general(draft.rng, draft.cpl)])


def _mov(draft: Draft, instruction: Instruction) -> None:
    register = instruction.op0_register
    if Register.ES <= register <= Register.GS:
        _operand_value(draft, instruction, 1, values.selector(draft.rng), 2)
    elif Register.CR0 <= register <= Register.CR15:
        usual = default_cr4(draft.profile)
        choices: dict[int, Callable[[], int]] = {
            Register.CR0: lambda: values.cr0(draft.rng),
            Register.CR4: lambda: values.cr4(draft.rng, usual),
            Register.CR8: lambda: draft.rng.choice((0, 5, 15, 16, 1 << 40)),
        }
        _operand_value(draft, instruction, 1, choices.get(register, lambda: values.address(draft.rng))())
    elif Register.DR0 <= register <= Register.DR15:
        _operand_value(draft, instruction, 1, draft.rng.choice((values.dr7(draft.rng), values.address(draft.rng), 0x400, 1 << 32)))


def _selector_operand(draft: Draft, instruction: Instruction) -> None:
    _operand_value(draft, instruction, instruction.op_count - 1, values.selector(draft.rng), 2)


def _far_pointer(draft: Draft, instruction: Instruction) -> None:
    """A far pointer in memory for LSS, LFS, LGS and for far JMP and CALL: offset, then selector."""
    rng = draft.rng
    size = max(instruction.memory_displ_size and 8, 8)
    is_load = instruction.op_count == 2
    chosen = values.selector(rng) if is_load else values.code_selector(rng)
    offset = values.address(rng) if rng.random() < 0.3 else _return_address(draft, draft.cpl)
    width = {Register.NONE: size}.get(instruction.op0_register, RegisterExt.size(instruction.op0_register) or size)
    data = offset & (1 << 8 * width) - 1 | chosen << 8 * width
    _operand_value(draft, instruction, instruction.op_count - 1, data, width + 2)


def _pseudo_descriptor(draft: Draft, instruction: Instruction) -> None:
    rng = draft.rng
    is_gdt = instruction.mnemonic == Mnemonic.LGDT
    usual, limit = (layout.GDT.start, layout.GDT_LIMIT) if is_gdt else (layout.IDT.start, layout.IDT_LIMIT)
    base = usual if rng.random() < 0.5 else values.address(rng)
    data = struct.pack("<HQ", limit if rng.random() < 0.7 else rng.getrandbits(16), base)
    _operand_value(draft, instruction, 0, int.from_bytes(data, "little"), 10)


def _string(draft: Draft, instruction: Instruction) -> None:
    draft.registers["rcx"] = draft.rng.choice((0, 1, 2, 3, 5, 9))
    draft.registers["rsi"] = values.pointer(draft.rng, draft.cpl)
    draft.registers["rdi"] = values.pointer(draft.rng, draft.cpl)


def _branch(draft: Draft, instruction: Instruction) -> None:
    if instruction.op0_kind in (OpKind.REGISTER, OpKind.MEMORY):
        if instruction.op0_kind == OpKind.MEMORY and draft.rng.random() < 0.5:
            _far_pointer(draft, instruction)
        else:
            _operand_value(draft, instruction, 0, _return_address(draft, draft.cpl))


def _cpuid(draft: Draft, instruction: Instruction) -> None:
    draft.registers["rax"] = 0


PREPARATIONS: Final[dict[int, Callable[[Draft, Instruction], None]]] = {
    **dict.fromkeys((_M.RDMSR, _M.WRMSR), _msr),
    **dict.fromkeys((_M.WRFSBASE, _M.WRGSBASE), _base_write),
    **dict.fromkeys((_M.IRET, _M.IRETD, _M.IRETQ), _frame),
    **dict.fromkeys((_M.SYSRETQ, _M.SYSEXITQ), _fast_return),
    **dict.fromkeys((_M.POPF, _M.POPFQ), _flags_image),
    **dict.fromkeys((_M.LAR, _M.LSL, _M.VERR, _M.VERW, _M.LLDT, _M.LTR), _selector_operand),
    **dict.fromkeys((_M.LSS, _M.LFS, _M.LGS), _far_pointer),
    **dict.fromkeys((_M.LGDT, _M.LIDT), _pseudo_descriptor),
    **dict.fromkeys((_M.MOVSB, _M.MOVSQ, _M.STOSD, _M.STOSQ), _string),
    **dict.fromkeys((_M.JMP, _M.CALL), _branch),
    _M.RETF: _far_frame,
    _M.RET: _near_return,
    _M.POP: _pop,
    _M.MOV: _mov,
    _M.CPUID: _cpuid,
}
"""What an instruction needs around it to meet its rules: a frame, a selector, a number, a pointer."""
