"""Looking at the instructions of a machine that is running, from outside: nothing is marked as accessed."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from iced_x86 import Code, Decoder, FlowControl, Mnemonic, Register
from iced_x86 import Instruction as Decoded
from unicorn import x86_const

from fuzzer.cores.unicorn.engine import Engine
from fuzzer.cores.unicorn.registers import Batch
from fuzzer.cores.unicorn.walk import GuestFaultError, OutsideError, Walker, Walks
from reference.image import PAGE

_MASK: Final = (1 << 64) - 1
_IRETS: Final = frozenset({Mnemonic.IRET, Mnemonic.IRETD, Mnemonic.IRETQ})
_EFER_NXE: Final = 1 << 11
_OPENING: Final = _IRETS | {
    Mnemonic.STI,
    Mnemonic.POPF,
    Mnemonic.POPFD,
    Mnemonic.POPFQ,
    Mnemonic.SYSRET,
    Mnemonic.SYSRETQ,
    Mnemonic.SYSEXIT,
    Mnemonic.SYSEXITQ,
}
_LONGEST: Final = 15
"""Bytes of an instruction."""
_DEBUG_MOVES: Final = frozenset({Code.MOV_DR_R64, Code.MOV_R64_DR, Code.MOV_DR_R32, Code.MOV_R32_DR})
_FAR: Final = _IRETS | {Mnemonic.SYSRET, Mnemonic.SYSRETQ, Mnemonic.SYSEXIT, Mnemonic.SYSEXITQ, Mnemonic.RETF}
_ADDRESS_SIZES: Final = {64: (64, 32), 32: (32, 16), 16: (16, 32)}
"""Without and with a 67 prefix."""
_PAGING: Final = Batch(("cr0", "cr3"))


class Inspector:
    """Reads and decodes instructions at linear addresses.

    An address above 4 GiB holds 64-bit code. Below, an instruction is of the size that the engine runs now, unless it was
    begun before the last change of size that `note_sizes` was told of.
    """

    def __init__(self, engine: Engine, address_bits: int, roots: tuple[int, ...], walks: Walks) -> None:
        self._engine = engine
        self._roots = roots
        self._reader = Walker(engine.ram, address_bits, walks)
        self._pages: dict[int, int] = {}
        """Physical addresses of pages of code, by page number."""
        self._bits = self._bits_before = 64
        self._before: frozenset[int] = frozenset()

    def note_sizes(self, addresses: tuple[int, ...], before: int, after: int) -> None:
        """`addresses` were begun in this order, the first in code of `before` bits; the engine stands in code of `after` bits."""
        self._bits, self._bits_before = after, before
        self._before = frozenset() if before == after else frozenset(self._until_change(addresses, before))

    def _until_change(self, addresses: tuple[int, ...], before: int) -> tuple[int, ...]:
        """Those before the first that is 64-bit code by its address, or up to the first far transfer."""
        for position, address in enumerate(addresses):
            if address >> 32:
                return addresses[:position]
            if _is_far(_decode(before, self.bytes_at(address))):
                return addresses[: position + 1]
        return addresses

    def bits_at(self, address: int) -> int:
        """64, 32 or 16: how the engine read the instruction at an address."""
        if address >> 32:
            return 64
        return self._bits_before if address in self._before else self._bits

    def bytes_at(self, address: int) -> bytes:
        """Up to 15 bytes, as many as are mapped."""
        page = self._pages.get(address >> 12)
        if page is not None and address & 0xFFF <= PAGE - _LONGEST:
            return self._engine.ram[page | address & 0xFFF : (page | address & 0xFFF) + _LONGEST]
        code = b""
        try:
            while len(code) < _LONGEST:
                place = self._physical(address + len(code) & _MASK)
                code += self._engine.ram[place : place + min(_LONGEST - len(code), PAGE - place % PAGE)]
        except (GuestFaultError, OutsideError):
            pass
        return code

    def _physical(self, address: int) -> int:
        page = self._pages.get(address >> 12)
        if page is None:
            page = self._pages[address >> 12] = self._walk(address) & ~0xFFF
        return page | address & 0xFFF

    def _walk(self, address: int) -> int:
        """Through the present hierarchy, or through another one that the code may have run in."""
        engine, reader = self._engine, self._reader
        cr0, cr3 = _PAGING.read(engine.library.uc_reg_read_batch, engine.handle)
        for root in (cr3, *self._roots):
            reader.set_rules(cr0, root, 0, _EFER_NXE)
            try:
                return reader.physical(address, write=False, mark=False)
            except (GuestFaultError, OutsideError):
                continue
        raise OutsideError

    def first_opening(self, addresses: tuple[int, ...]) -> int | None:
        """The index of the first instruction that may enable interrupts or unblock NMIs: STI, POPF, IRET, SYSRET or SYSEXIT."""
        known: dict[int, bool] = {}
        for index, address in enumerate(addresses):
            opens = known.get(address)
            if opens is None:
                opens = known[address] = _opens(self.bits_at(address), self.bytes_at(address))
            if opens:
                return index
        return None

    def instruction(self, address: int) -> Decoded:
        """The instruction at an address, as if it stood at 0."""
        return _decode(self.bits_at(address), self.bytes_at(address))

    def repeats(self, address: int) -> bool:
        """Whether a repeated string instruction stands there."""
        return repeats(self.instruction(address))

    def repeat_count(self, address: int) -> int:
        """What is left in RCX, ECX or CX, as the address size says, for the repeated instruction at an address."""
        rcx = self._engine.read(x86_const.UC_X86_REG_RCX)
        prefixed = 0x67 in self.bytes_at(address)[: self.instruction(address).len]
        size = _ADDRESS_SIZES[self.bits_at(address)][prefixed]
        return rcx & (1 << size) - 1

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
        """STI, or a load of SS that holds events back."""
        return self.instruction(address).mnemonic == Mnemonic.STI or self.loads_stack_segment(address)

    def loads_stack_segment(self, address: int) -> bool:
        """MOV SS or POP SS."""
        decoded = self.instruction(address)
        return decoded.mnemonic in (Mnemonic.MOV, Mnemonic.POP) and decoded.op0_register == Register.SS


def repeats(decoded: Decoded) -> bool:
    """A repeated string instruction."""
    return decoded.has_rep_prefix or decoded.has_repne_prefix


def begins_again(decoded: Decoded) -> bool:
    """Whether an instruction met twice in a row was begun anew: it neither repeats nor branches."""
    return not repeats(decoded) and decoded.flow_control == FlowControl.NEXT


@lru_cache(maxsize=4096)
def _decode(bits: int, code: bytes) -> Decoded:
    return Decoder(bits, code).decode()


@lru_cache(maxsize=4096)
def _opens(bits: int, code: bytes) -> bool:
    return _decode(bits, code).mnemonic in _OPENING


def _is_far(decoded: Decoded) -> bool:
    direct, indirect = decoded.is_jmp_far or decoded.is_call_far, decoded.is_jmp_far_indirect or decoded.is_call_far_indirect
    return decoded.mnemonic in _FAR or direct or indirect
