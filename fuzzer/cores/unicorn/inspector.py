"""Looking at the instructions of a machine that is running, from outside: nothing is marked as accessed."""

from __future__ import annotations

from typing import Final

from iced_x86 import Code, Decoder, Mnemonic, Register
from iced_x86 import Instruction as Decoded
from unicorn import x86_const

from fuzzer.cores.unicorn.engine import Engine
from fuzzer.cores.unicorn.walk import GuestFaultError, OutsideError, Walker
from reference.image import PAGE

_MASK: Final = (1 << 64) - 1
_IRETS: Final = frozenset({Mnemonic.IRET, Mnemonic.IRETD, Mnemonic.IRETQ})
_EFER_NXE: Final = 1 << 11
_OPENINGS: Final = frozenset({0xFB, 0x9D, 0xCF, 0x07, 0x35})
"""The opcode bytes of STI, POPF and IRET, and the second ones of SYSRET and SYSEXIT: worth decoding."""
_OPENING: Final = _IRETS | {
    Mnemonic.STI,
    Mnemonic.POPF,
    Mnemonic.POPFQ,
    Mnemonic.SYSRET,
    Mnemonic.SYSRETQ,
    Mnemonic.SYSEXIT,
    Mnemonic.SYSEXITQ,
}
_OPENING_BYTES: Final = 4
_DEBUG_MOVES: Final = (Code.MOV_DR_R64, Code.MOV_R64_DR)


class Inspector:
    """Reads and decodes instructions at linear addresses."""

    def __init__(self, engine: Engine, address_bits: int) -> None:
        self._engine = engine
        self._address_bits = address_bits
        self._pages: dict[int, int] = {}
        """Physical addresses of pages of code, for `first_opening`."""

    def _walker(self) -> Walker:
        walker = Walker(self._engine.ram, self._address_bits)
        read = self._engine.read
        walker.set_rules(read(x86_const.UC_X86_REG_CR0), read(x86_const.UC_X86_REG_CR3), 0, _EFER_NXE)
        return walker

    def bytes_at(self, address: int) -> bytes:
        """Up to 15 bytes, as many as are mapped."""
        walker = self._walker()
        code = b""
        try:
            while len(code) < 15:
                place = walker.physical(address + len(code) & _MASK, write=False, mark=False)
                code += self._engine.ram[place : place + min(15 - len(code), PAGE - place % PAGE)]
        except (GuestFaultError, OutsideError):
            pass
        return code

    def first_opening(self, addresses: tuple[int, ...]) -> int | None:
        """The index of the first instruction that may enable interrupts or unblock NMIs: STI, POPF, IRET, SYSRET or SYSEXIT."""
        known: dict[int, bool] = {}
        for index, address in enumerate(addresses):
            opens = known.get(address)
            if opens is None:
                opens = known[address] = self._may_open(address)
            if opens:
                return index
        return None

    def _may_open(self, address: int) -> bool:
        page = self._pages.get(address >> 12)
        if page is None or address & 0xFFF > PAGE - _OPENING_BYTES:
            code = self.bytes_at(address)[:_OPENING_BYTES]
            if address & 0xFFF <= PAGE - _OPENING_BYTES:
                self._pages[address >> 12] = self._walker().physical(address, write=False, mark=False) & ~0xFFF
        else:
            start = page | address & 0xFFF
            code = self._engine.ram[start : start + _OPENING_BYTES]
        return any(byte in _OPENINGS for byte in code) and self.instruction(address).mnemonic in _OPENING

    def instruction(self, address: int) -> Decoded:
        """The instruction at an address."""
        return Decoder(64, self.bytes_at(address), ip=address).decode()

    def repeats(self, address: int) -> bool:
        """Whether a repeated string instruction stands there."""
        decoded = self.instruction(address)
        return decoded.has_rep_prefix or decoded.has_repne_prefix

    def repeat_count(self, address: int) -> int:
        """What is left in RCX, or in ECX with a 67 prefix, for the repeated instruction at an address."""
        rcx = self._engine.read(x86_const.UC_X86_REG_RCX)
        narrow = 0x67 in self.bytes_at(address)[: self.instruction(address).len]
        return rcx & 0xFFFF_FFFF if narrow else rcx

    def is_halt(self, address: int) -> bool:
        """HLT."""
        return self.instruction(address).mnemonic == Mnemonic.HLT

    def is_iret(self, address: int) -> bool:
        """IRET in any size."""
        return self.instruction(address).mnemonic in _IRETS

    def moves_debug_register(self, address: int) -> bool:
        """MOV to or from a debug register."""
        return self.instruction(address).code in _DEBUG_MOVES

    def opens_shadow(self, address: int) -> bool:
        """STI or MOV SS."""
        return self.instruction(address).mnemonic == Mnemonic.STI or self.loads_stack_segment(address)

    def loads_stack_segment(self, address: int) -> bool:
        """MOV SS."""
        decoded = self.instruction(address)
        return decoded.mnemonic == Mnemonic.MOV and decoded.op0_register == Register.SS
