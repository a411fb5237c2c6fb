"""GS and FS bases, MSRs, control and debug registers (SDM Vol. 2A to 2D)."""

from __future__ import annotations

from reference.bits import DR6_FIXED, DR6_WRITABLE, DR7_FIXED, DR7_WRITABLE, MASK32, canonical
from reference.debug import check_general_detect
from reference.decode import Instruction
from reference.faults import NotModelled, Vector, require
from reference.instructions.tables import forbid_in_user_mode
from reference.machine import FS, GS, RAX, RBX, RCX, RDX, Machine, access_rules_changed
from reference.memory import load
from reference.msrs import read_msr, write_msr
from reference.operands import Memory, SystemRegister
from reference.paging import page_of
from reference.profiles import Cr0, Cr4


def swapgs(m: Machine, i: Instruction, end: int) -> int:
    """Exchange GS.base with IA32_KERNEL_GS_BASE (SDM Vol. 2B, SWAPGS)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2B, SWAPGS: CPL is not 0")

    m.gs.base, m.kernel_gs_base = m.kernel_gs_base, m.gs.base

    return end


def rdmsr(m: Machine, i: Instruction, end: int) -> int:
    """EDX:EAX = the register that ECX names (SDM Vol. 2B, RDMSR)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2B, RDMSR: CPL is not 0")
    value = read_msr(m, m.gpr[RCX] & MASK32)

    m.gpr[RAX], m.gpr[RDX] = value & MASK32, value >> 32

    return end


def wrmsr(m: Machine, i: Instruction, end: int) -> int:
    """The register that ECX names = EDX:EAX (SDM Vol. 2D, WRMSR)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2D, WRMSR: CPL is not 0")
    write_msr(m, m.gpr[RCX] & MASK32, (m.gpr[RDX] & MASK32) << 32 | m.gpr[RAX] & MASK32)
    return end


def _require_fsgsbase(m: Machine, i: Instruction) -> None:
    if i.operand_prefix:
        raise NotModelled(f"{i.name} with a 66 prefix")
    enabled = m.profile.fsgsbase and bool(m.cr4 & Cr4.FSGSBASE)
    require(enabled, Vector.UD, None, "SDM Vol. 2B, RDFSBASE: CR4.FSGSBASE is 0")


def rd_base(m: Machine, i: Instruction, end: int) -> int:
    """Read the base of FS or GS (SDM Vol. 2B, RDFSBASE/RDGSBASE)."""
    _require_fsgsbase(m, i)

    i.destination.write(m, m.segments[FS if i.name == "rdfsbase" else GS].base)

    return end


def wr_base(m: Machine, i: Instruction, end: int) -> int:
    """Write the base of FS or GS; a 32-bit source is zero-extended (SDM Vol. 2D, WRFSBASE/WRGSBASE)."""
    _require_fsgsbase(m, i)
    value = i.destination.read(m)
    require(canonical(value), Vector.GP, 0, "SDM Vol. 2D, WRFSBASE: the source is not canonical")

    m.segments[FS if i.name == "wrfsbase" else GS].base = value

    return end


def _control_number(operand: object) -> int:
    """The number of CR0, CR2, CR3, CR4 or CR8; of any other no instruction is decoded (SDM Vol. 2B, MOV control registers)."""
    assert isinstance(operand, SystemRegister)
    return operand.number


def mov_from_control(m: Machine, i: Instruction, end: int) -> int:
    """Read a control register (SDM Vol. 2B, MOV - Move to/from Control Registers)."""
    number = _control_number(i.source)
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2B, MOV: a control register is read at a CPL other than 0")

    i.destination.write(m, {0: m.cr0, 2: m.cr2, 3: m.cr3, 4: m.cr4, 8: m.cr8}[number])

    return end


def mov_to_control(m: Machine, i: Instruction, end: int) -> int:
    """Write a control register (SDM Vol. 2B, MOV - Move to/from Control Registers)."""
    number = _control_number(i.destination)
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2B, MOV: a control register is written at a CPL other than 0")
    value = i.source.read(m)
    _WRITERS[number](m, value)
    if number != 2:
        access_rules_changed(m)
    return end


def write_cr0(m: Machine, value: int) -> None:
    """CR0: impossible combinations fault; reserved bits of the low half are ignored, ET stays 1 (SDM Vol. 3A, 2.5)."""
    require(value <= MASK32, Vector.GP, 0, "SDM Vol. 2B, MOV: a bit of CR0[63:32] is set")
    require(bool(value & Cr0.PE) or not value & Cr0.PG, Vector.GP, 0, "SDM Vol. 2B, MOV: CR0.PG is set with CR0.PE clear")
    require(bool(value & Cr0.CD) or not value & Cr0.NW, Vector.GP, 0, "SDM Vol. 2B, MOV: CR0.NW is set with CR0.CD clear")
    require(bool(value & Cr0.PG), Vector.GP, 0, "SDM Vol. 3A, 5.1.2: CR0.PG is cleared in 64-bit mode")

    m.cr0 = value & Cr0.DEFINED | Cr0.ET


def clts(m: Machine, i: Instruction, end: int) -> int:
    """Clear CR0.TS (SDM Vol. 2A, CLTS)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2A, CLTS: CPL is not 0")

    m.cr0 &= ~Cr0.TS

    return end


def write_cr2(m: Machine, value: int) -> None:
    """CR2 holds any value (SDM Vol. 3A, 2.5)."""
    m.cr2 = value


def write_cr3(m: Machine, value: int) -> None:
    """CR3: address bits past MAXPHYADDR are reserved (SDM Vol. 3A, 5.5.2)."""
    rule = "SDM Vol. 2B, MOV: a reserved bit of CR3 is set"
    require(value >> m.profile.physical_address_bits == 0, Vector.GP, 0, rule)

    page_of(m, value >> 12)
    m.cr3 = value


def write_cr4(m: Machine, value: int) -> None:
    """CR4: reserved bits fault, PAE and LA57 are locked in IA-32e mode (SDM Vol. 3A, 2.5 and 5.1.2)."""
    require(not value & Cr4.RESERVED, Vector.GP, 0, "SDM Vol. 2B, MOV: a reserved bit of CR4 is set")
    require(bool(value & Cr4.PAE), Vector.GP, 0, "SDM Vol. 3A, 5.1.2: CR4.PAE is cleared in IA-32e mode")
    require(not value & Cr4.LA57, Vector.GP, 0, "SDM Vol. 2B, MOV: CR4.LA57 is changed in IA-32e mode")
    if value & ~m.profile.cr4_allowed:
        raise NotModelled("CR4 bit of a feature outside the model")

    m.cr4 = value


def write_cr8(m: Machine, value: int) -> None:
    """CR8, the task priority: bits 63:4 are reserved (SDM Vol. 3A, 2.5)."""
    require(value < 16, Vector.GP, 0, "SDM Vol. 2B, MOV: a reserved bit of CR8 is set")

    m.cr8 = value


_WRITERS = {0: write_cr0, 2: write_cr2, 3: write_cr3, 4: write_cr4, 8: write_cr8}


def _debug_number(m: Machine, operand: object) -> int:
    """The number of a debug register after the rules that come before any access (SDM Vol. 2B, MOV debug registers).

    4 and 5 mean 6 and 7 unless CR4.DE makes them #UD. The manual lists the faults without an order; a case in which two
    of them hold can differ between processors.
    """
    assert isinstance(operand, SystemRegister)
    number = operand.number
    if number in (4, 5):
        if m.cr4 & Cr4.DE and m.cpl != 0:
            raise NotModelled("DR4 or DR5 with CR4.DE at a CPL other than 0")
        require(not m.cr4 & Cr4.DE, Vector.UD, None, "SDM Vol. 2B, MOV: DR4 or DR5 with CR4.DE set")
        number += 2
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2B, MOV: a debug register is accessed at a CPL other than 0")
    check_general_detect(m)
    return number


def mov_from_debug(m: Machine, i: Instruction, end: int) -> int:
    """Read a debug register (SDM Vol. 2B, MOV - Move to/from Debug Registers)."""
    number = _debug_number(m, i.source)
    if number == 6 and m.undefined_dr6:
        raise NotModelled("reads bits of DR6 that may be set or not")

    i.destination.write(m, m.dr[number] if number < 4 else m.dr6 if number == 6 else m.dr7)

    return end


def mov_to_debug(m: Machine, i: Instruction, end: int) -> int:
    """Write a debug register; bits 63:32 of DR6 and DR7 must be 0 (SDM Vol. 2B, MOV - Move to/from Debug Registers)."""
    number = _debug_number(m, i.destination)
    value = i.source.read(m)
    require(number < 4 or value <= MASK32, Vector.GP, 0, "SDM Vol. 2B, MOV: a bit of DR6[63:32] or DR7[63:32] is set")

    if number < 4:
        m.dr[number] = value
        access_rules_changed(m)
    elif number == 6:
        m.dr6 = value & DR6_WRITABLE | DR6_FIXED
        m.undefined_dr6 = 0
    else:
        m.dr7 = value & DR7_WRITABLE | DR7_FIXED
        access_rules_changed(m)

    return end


def smsw(m: Machine, i: Instruction, end: int) -> int:
    """Store CR0: 16 bits to memory, as many as fit to a register (SDM Vol. 2B, SMSW)."""
    forbid_in_user_mode(m)
    i.destination.write(m, m.cr0)
    return end


def invlpg(m: Machine, i: Instruction, end: int) -> int:
    """Forget the translation of a page; the address is not accessed (SDM Vol. 2A, INVLPG)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2A, INVLPG: CPL is not 0")

    access_rules_changed(m)

    return end


def invpcid(m: Machine, i: Instruction, end: int) -> int:
    """Forget translations by process-context identifier (SDM Vol. 2A, INVPCID)."""
    require(m.profile.invpcid, Vector.UD, None, "SDM Vol. 2A, INVPCID: the processor has no INVPCID")
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2A, INVPCID: CPL is not 0")
    assert isinstance(i.source, Memory)
    kind = i.destination.read(m)
    require(kind <= 3, Vector.GP, 0, "SDM Vol. 2A, INVPCID: no such type")
    address = i.source.address(m)
    pcid, linear = load(m, address, 8, i.source.stack), load(m, address + 8, 8, i.source.stack)
    require(pcid >> 12 == 0, Vector.GP, 0, "SDM Vol. 2A, INVPCID: a reserved bit of the descriptor is set")
    require(kind > 1 or pcid == 0, Vector.GP, 0, "SDM Vol. 2A, INVPCID: a PCID other than 0 with CR4.PCIDE clear")
    require(kind > 0 or canonical(linear), Vector.GP, 0, "SDM Vol. 2A, INVPCID: the address is not canonical")

    access_rules_changed(m)

    return end


def cpuid(m: Machine, i: Instruction, end: int) -> int:
    """Leaf 0: the vendor's name; what other leaves say is not part of these profiles (SDM Vol. 2A, CPUID)."""
    if m.gpr[RAX] & MASK32:
        raise NotModelled("cpuid leaf other than 0")
    name = m.profile.cpuid_vendor

    m.gpr[RAX] = m.profile.cpuid_max_leaf
    m.gpr[RBX], m.gpr[RDX], m.gpr[RCX] = (int.from_bytes(name[n : n + 4], "little") for n in (0, 4, 8))

    return end
