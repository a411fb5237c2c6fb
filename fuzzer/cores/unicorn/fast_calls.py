"""SYSCALL and SYSENTER: Unicorn calls a hook and does nothing else, so the adapter does them.

SDM Vol. 2B, SYSCALL and SYSENTER; APM Vol. 3, the same pages: SYSCALL is #UD outside 64-bit mode on Intel and goes to CSTAR on
AMD, SYSENTER is #UD in long mode on AMD.
"""

from __future__ import annotations

from typing import Final

from unicorn import x86_const

from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.engine import SYSCALL, Engine
from fuzzer.cores.unicorn.registers import Batch
from fuzzer.cores.unicorn.walk import GuestFaultError
from reference.profiles import Profile

_CODE: Final = 0x00AF_9B00_0000_FFFF
_STACK: Final = 0x00CF_9300_0000_FFFF
_SYSCALL: Final = Batch(("efer", "star", "lstar", "cstar", "sfmask", "rflags"))
_SYSENTER: Final = Batch(("sysenter_cs", "sysenter_esp", "sysenter_eip", "rflags"))
_RF, _IF, _VM = 1 << 16, 1 << 9, 1 << 17


class FastCalls:
    """Does the two instructions for one engine."""

    def __init__(self, engine: Engine, profile: Profile) -> None:
        self._engine = engine
        self._amd = profile.vendor == "amd"

    def perform(self, instruction: str, following: int, bits: int) -> None:
        """Do the instruction that ended at `following` in code of 64, 32 or 16 bits, or raise GuestFaultError with what it meets."""
        if instruction == SYSCALL:
            self._syscall(following, bits)
        else:
            self._sysenter()

    def _syscall(self, following: int, bits: int) -> None:
        engine = self._engine
        efer, star, lstar, cstar, mask, rflags = _SYSCALL.read(engine.library.uc_reg_read_batch, engine.handle)
        if not efer & 1 or (bits != 64 and not self._amd):
            raise GuestFaultError(6, 0)
        engine.write(x86_const.UC_X86_REG_RCX, following)
        engine.write(x86_const.UC_X86_REG_R11, rflags & ~_RF)
        target = lstar if bits == 64 else cstar
        self._enter(star >> 32 & 0xFFFC, (star >> 32) + 8 & 0xFFFF, target, self.masked_flags(rflags, mask))

    def _sysenter(self) -> None:
        engine = self._engine
        if self._amd:
            raise GuestFaultError(6, 0)
        segment, stack, target, rflags = _SYSENTER.read(engine.library.uc_reg_read_batch, engine.handle)
        selector = segment & 0xFFFC
        if not selector:
            raise GuestFaultError(13, 0)
        self._enter(selector, selector + 8 & 0xFFFF, target, rflags & ~(_IF | _VM))
        engine.write(x86_const.UC_X86_REG_RSP, stack)

    def masked_flags(self, rflags: int, mask: int) -> int:
        """RFLAGS behind SYSCALL: less what SFMASK names, and RF."""
        return rflags & ~(mask | _RF) | 2

    def _enter(self, selector: int, stack_selector: int, rip: int, rflags: int) -> None:
        """Flat 64-bit code and stack segments at CPL 0, whatever the descriptor tables hold."""
        engine = self._engine
        engine.save()
        engine.poke("24s", blob.SEGMENTS + blob.SEGMENT_SIZE, blob.segment_cache(selector, _CODE))
        engine.poke("24s", blob.SEGMENTS + 2 * blob.SEGMENT_SIZE, blob.segment_cache(stack_selector, _STACK))
        (hflags,) = engine.peek("<I", blob.HFLAGS)
        engine.poke("<I", blob.HFLAGS, blob.handler_hflags(hflags, 0))
        engine.poke("<Q", blob.RIP, rip)
        engine.restore()
        engine.write(x86_const.UC_X86_REG_RFLAGS, rflags)
