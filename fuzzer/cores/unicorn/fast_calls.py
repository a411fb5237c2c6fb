"""SYSCALL and SYSENTER: Unicorn calls a hook and does nothing else, so the adapter does them (SDM Vol. 2B)."""

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
_STATE: Final = Batch(("efer", "star", "lstar", "sfmask", "sysenter_cs", "sysenter_esp", "sysenter_eip", "rflags"))
_RF, _IF, _VM = 1 << 16, 1 << 9, 1 << 17


def perform(engine: Engine, instruction: str, following: int, profile: Profile) -> None:
    """Do the instruction that ended at `following`, or raise GuestFaultError with the exception it meets."""
    efer, star, lstar, mask, sysenter_cs, sysenter_esp, sysenter_eip, rflags = _STATE.read(engine.library.uc_reg_read_batch, engine.handle)
    if instruction == SYSCALL:
        if not efer & 1:
            raise GuestFaultError(6, 0)
        engine.write(x86_const.UC_X86_REG_RCX, following)
        engine.write(x86_const.UC_X86_REG_R11, rflags & ~_RF)
        _enter(engine, star >> 32 & 0xFFFC, (star >> 32) + 8 & 0xFFFF, lstar, rflags & ~(mask | _RF) | 2)
        return
    if profile.vendor == "amd":
        raise GuestFaultError(6, 0)
    if not sysenter_cs & 0xFFFC:
        raise GuestFaultError(13, 0)
    selector = sysenter_cs & 0xFFFC
    _enter(engine, selector, selector + 8 & 0xFFFF, sysenter_eip, rflags & ~(_IF | _VM))
    engine.write(x86_const.UC_X86_REG_RSP, sysenter_esp)


def _enter(engine: Engine, selector: int, stack_selector: int, rip: int, rflags: int) -> None:
    """Flat 64-bit code and stack segments at CPL 0, whatever the descriptor tables hold."""
    engine.save()
    engine.poke("24s", blob.SEGMENTS + blob.SEGMENT_SIZE, blob.segment_cache(selector, _CODE))
    engine.poke("24s", blob.SEGMENTS + 2 * blob.SEGMENT_SIZE, blob.segment_cache(stack_selector, _STACK))
    (hflags,) = engine.peek("<I", blob.HFLAGS)
    engine.poke("<I", blob.HFLAGS, hflags & ~(blob.HFLAG_CPL | blob.HFLAG_SHADOW))
    engine.poke("<Q", blob.RIP, rip)
    engine.restore()
    engine.write(x86_const.UC_X86_REG_RFLAGS, rflags)
