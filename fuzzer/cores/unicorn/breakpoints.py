"""The engine's own hardware breakpoints: only a MOV DR7 that it runs itself sets them, and each drops all translated code.

So they stay in the engine until a case wants others: a sweep runs hundreds of cases with the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unicorn import x86_const

from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.engine import Engine
from reference.image import PAGE

ENABLES: Final = 0xFF
"""L0 to G3 of DR7."""
STUB_PAGES: Final = 5
_STUB: Final = 0xFFFF_FF00_0000_0000
"""Where the adapter's own code is mapped while it sets breakpoints."""
_STUB_CODE: Final = bytes.fromhex("0f23f8")  # mov dr7, rax
_DISARMED: Final = 0x400
_GENERAL_DETECT: Final = 1 << 13


def armed(registers: Mapping[str, int]) -> tuple[int, ...]:
    """DR0 to DR3 and DR7 of a case that enables breakpoints; nothing of one that does not."""
    return tuple(registers[name] for name in ("dr0", "dr1", "dr2", "dr3", "dr7")) if registers["dr7"] & ENABLES else ()


class Breakpoints:
    """What an engine has set, and the saved state that goes with it; `first` is the first of STUB_PAGES physical pages to use."""

    def __init__(self, engine: Engine, first: int, template: bytes) -> None:
        self._engine = engine
        self._tables = first * PAGE
        self._clean = template
        self._template = template
        self._held: tuple[int, ...] = ()
        self._mark: tuple[bytes, ...] = ()
        """The debug registers and the engine's pointers to its breakpoints, as they were when these were set."""
        self._map_stub()

    def _map_stub(self) -> None:
        """Page tables and a page of code behind the machine's memory."""
        ram = self._engine.ram
        for level, shift in enumerate((39, 30, 21, 12)):
            entry = self._tables + (level + 1) * PAGE | 0x63
            place = self._tables + level * PAGE + (_STUB >> shift & 511) * 8
            ram[place : place + 8] = entry.to_bytes(8, "little")
        start = self._tables + 4 * PAGE
        ram[start : start + len(_STUB_CODE)] = _STUB_CODE

    def arm(self, registers: Mapping[str, int]) -> bytes:
        """Have exactly the breakpoints of `registers` in the engine; the saved state to begin with, which holds its pointers to them."""
        wanted = armed(registers)
        if wanted != self._held:
            if self._held:
                # The last run may have left the engine where our code cannot run; the state that goes with its breakpoints is good.
                self._engine.load_state(self._template)
                self._engine.restore()
                self.disarm()
            if wanted:
                self._engine.load_state(self._clean)
                self._engine.restore()
                self._engine.write_all({**registers, "dr7": _DISARMED})
                self._write_dr7(registers["dr7"])
                self._held, self._template, self._mark = wanted, self._engine.state(), self._debug_state()
        return self._template

    def settle(self) -> None:
        """After a run: what it changed is taken out again. Raises CoreError where the run left no way to do that."""
        engine = self._engine
        if self._held:
            engine.save()
            if self._debug_state() != self._mark:
                self.disarm()
        elif engine.read(x86_const.UC_X86_REG_DR7) & ENABLES:
            self.disarm()

    def _debug_state(self) -> tuple[bytes, ...]:
        return self._engine.peek(blob.DEBUG_FORMAT, blob.DEBUG)  # type: ignore[no-any-return]

    def disarm(self) -> None:
        """Take every breakpoint out of the engine."""
        self._held, self._template = (), self._clean
        self._write_dr7(_DISARMED)

    def _write_dr7(self, value: int) -> None:
        """Let the engine run MOV DR7; the state saved at the end holds its own pointers to the breakpoints."""
        engine = self._engine
        before = engine.read(x86_const.UC_X86_REG_DR7)
        engine.write(x86_const.UC_X86_REG_DR7, before & ~_GENERAL_DETECT)
        engine.save()
        (hflags,) = engine.peek("<I", blob.HFLAGS)
        engine.poke("<I", blob.HFLAGS, blob.handler_hflags(hflags, 0))
        engine.restore()
        engine.write(x86_const.UC_X86_REG_RFLAGS, 2)
        engine.write(x86_const.UC_X86_REG_CR3, self._tables)
        engine.write(x86_const.UC_X86_REG_RAX, value)
        stop = engine.run(_STUB, 1)
        if stop.vector is not None or stop.error or engine.read(x86_const.UC_X86_REG_RIP) != _STUB + len(_STUB_CODE):
            raise CoreError(f"unicorn: could not set DR7 to {value:#x}: {stop}")
        engine.save()
