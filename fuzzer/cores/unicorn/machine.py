"""One engine of one CPU model: an image goes in, a run starts, an observation comes out, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from unicorn import x86_const

from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.arrivals import Arrivals
from fuzzer.cores.unicorn.breakpoints import ENABLES, STUB_PAGES, Breakpoints
from fuzzer.cores.unicorn.delivery import Doorman
from fuzzer.cores.unicorn.engine import Engine, Stop
from fuzzer.cores.unicorn.fast_calls import FastCalls
from fuzzer.cores.unicorn.inspector import Inspector
from fuzzer.cores.unicorn.pages import code_pages
from fuzzer.cores.unicorn.registers import MSRS
from fuzzer.cores.unicorn.run import Run
from fuzzer.cores.unicorn.segments import descriptor_caches
from fuzzer.cores.unicorn.walk import Walker, Walks
from reference.image import PAGE, Image, Observation, Step


@dataclass(frozen=True, slots=True)
class Parts:
    """The classes that do what the engine leaves to its user: a core made with another one behaves otherwise in one rule.

    `Doorman` enters handlers, `Arrivals` holds events back, `FastCalls` does SYSCALL and SYSENTER. Their public methods are
    single rules of the manual, so a planted mistake is a subclass that overrides one of them and nothing else:

        class Unaligned(Doorman):
            def aligned(self, rsp: int) -> int:
                return rsp

        core = UnicornCore(Parts(doorman=Unaligned))
    """

    doorman: type[Doorman] = Doorman
    arrivals: type[Arrivals] = Arrivals
    fast_calls: type[FastCalls] = FastCalls


USUAL: Final = Parts()
"""As the manual has it."""


class Machine:
    """An engine with what it takes to put an image in and get an observation out."""

    def __init__(self, model: int, frames: int, image: Image, parts: Parts) -> None:
        self.engine = Engine(model, frames + STUB_PAGES)
        self._parts = parts
        self._loaded: dict[int, bytes | None] = {}
        self._running: Image | None = None
        self._spoiled = False
        """Breakpoints of the last run are still in the engine."""
        for frame, page in image.pages.items():
            self.engine.ram[frame * PAGE : (frame + 1) * PAGE] = page
            self._loaded[frame] = page
        self._judge_pages(image)
        self._breakpoints = Breakpoints(self.engine, frames, self._enter_long_mode(image))

    def _enter_long_mode(self, image: Image) -> bytes:
        engine, registers = self.engine, image.registers
        engine.write(x86_const.UC_X86_REG_CR4, registers["cr4"])
        engine.write(x86_const.UC_X86_REG_CR3, registers["cr3"])
        engine.uc.msr_write(MSRS["efer"], registers["efer"])
        engine.write(x86_const.UC_X86_REG_CR0, registers["cr0"])
        engine.save()
        return engine.state()

    def tidy(self) -> bool:
        """Clean up behind a run that was given up; whether the engine is as new then."""
        if self._running is not None:
            self._clean_up(self._running, self._changed(self._running))
        return not self._spoiled

    def start(self, image: Image) -> Run:
        """Put the image into a tidy engine and stand before its first instruction."""
        self._running = image
        self._load_pages(image)
        engine, registers = self.engine, image.registers
        engine.load_state(self._breakpoints.arm(registers))
        self._poke_segments(image)
        engine.restore()
        engine.write_all(registers)
        address_bits, parts = image.profile.physical_address_bits, self._parts
        return Run(
            engine,
            image,
            parts.doorman(engine, Walker(engine.ram, address_bits, self._walks), image.end_vector),
            parts.arrivals(image.events),
            parts.fast_calls(engine, image.profile),
            Inspector(engine, address_bits, self._code.roots, self._peeks),
            self._rehearse,
        )

    def _rehearse(self, rip: int, most: int) -> Stop:
        """Let the engine run at most `most` instructions, and undo it."""
        engine = self.engine
        memory = engine.ram[:]
        engine.save()
        state = engine.state()
        tried = engine.run(rip, most)
        if engine.read(x86_const.UC_X86_REG_DR7) & ENABLES:
            self._breakpoints.disarm()  # what the trial armed would outlive it
        spans = [slice(frame * PAGE, (frame + 1) * PAGE) for frame in self._code.stale]
        changed = any(engine.ram[span] != memory[span] for span in spans)
        engine.ram[:] = memory
        if changed:
            engine.forget_code()
        engine.load_state(state)
        engine.restore()
        engine.write(x86_const.UC_X86_REG_CR3, engine.read(x86_const.UC_X86_REG_CR3))  # empties the TLB
        return tried

    def _load_pages(self, image: Image) -> None:
        stale, moved = False, image.registers["cr3"] // PAGE not in self._code.tables
        ram, loaded, code = self.engine.ram, self._loaded, self._code
        for frame, page in image.pages.items():
            if loaded.get(frame) is not page:
                if ram[frame * PAGE : (frame + 1) * PAGE] != page:
                    ram[frame * PAGE : (frame + 1) * PAGE] = page
                    stale = stale or frame in code.stale
                    moved = moved or frame in code.tables
                loaded[frame] = page
        if stale or moved:
            self.engine.forget_code()
        if moved:
            self._judge_pages(image)

    def _judge_pages(self, image: Image) -> None:
        """Look at paging structures that are new to this engine."""
        self._code = code_pages(image.pages, image.registers["cr3"])
        self._walks, self._peeks = Walks(self._code.tables), Walks(self._code.tables)

    def _poke_segments(self, image: Image) -> None:
        """Fill the descriptor caches, and set the CPL and the size of code that follow from them."""
        caches, mode = descriptor_caches(image)
        self.engine.poke(f"{len(caches)}s", blob.SEGMENTS, caches)
        (hflags,) = self.engine.peek("<I", blob.HFLAGS)
        kept = hflags & ~(blob.HFLAG_CPL | blob.HFLAG_SHADOW | blob.HFLAG_MODE)
        self.engine.poke("<I", blob.HFLAGS, kept | mode | image.registers["cs"] & 3)

    def view(self, run: Run, known: int, asynchronous: bool) -> Step:
        """The run as it stands; deliveries from number `known` on are new."""
        new = tuple(run.doorman.deliveries[known:])
        raised, end, detail = run.raised, run.end, run.detail
        return Step(
            run.retired,
            self.engine.read_all(),
            self._changed(run.image),
            new,
            raised,
            at_fetch=run.at_fetch,
            held_by_engine=run.arrivals.held_by_shadow,
            asynchronous=asynchronous,
            code_bits=self._code_bits(),
            end=end,
            detail=detail,
        )

    def _code_bits(self) -> int:
        self.engine.save()
        (hflags,) = self.engine.peek("<I", blob.HFLAGS)
        return blob.code_bits(hflags)

    def _changed(self, image: Image) -> dict[int, bytes]:
        ram = self.engine.ram
        return {
            frame: data
            for frame, page in image.pages.items()
            if (data := ram[frame * PAGE : (frame + 1) * PAGE]) != page and frame not in image.scratch
        }

    def finish(self, run: Run) -> Observation:
        """What can be seen of the machine now; the next `start` begins from a clean engine."""
        assert run.end is not None
        registers = self.engine.read_all()
        memory = self._changed(run.image)
        self._clean_up(run.image, memory)
        return Observation(run.end, registers, memory, tuple(run.doorman.deliveries), run.detail, run.retired)

    def _clean_up(self, image: Image, changed: Mapping[int, bytes]) -> None:
        """Leave nothing behind: pages that no longer hold what was loaded, breakpoints."""
        for frame in (*changed, *image.scratch):
            self._loaded[frame] = None
        try:
            self._breakpoints.settle()
        except CoreError:
            self._spoiled = True  # the run left the engine in a state that our code cannot run in, such as a CS with a base
        self._running = None
