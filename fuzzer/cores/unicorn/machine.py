"""One engine of one CPU model: an image goes in, a run starts, an observation comes out, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Mapping

from unicorn import x86_const

from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.breakpoints import STUB_PAGES, Breakpoints
from fuzzer.cores.unicorn.engine import Engine
from fuzzer.cores.unicorn.run import Run
from fuzzer.cores.unicorn.segments import descriptor_caches
from fuzzer.cores.unicorn.walk import mapped_frames
from reference.image import PAGE, Image, Observation, Step


class Machine:
    """An engine with what it takes to put an image in and get an observation out."""

    def __init__(self, model: int, frames: int, image: Image) -> None:
        self.engine = Engine(model, frames + STUB_PAGES)
        self._loaded: dict[int, bytes | None] = {}
        self._running: Image | None = None
        self._spoiled = False
        """Breakpoints of the last run are still in the engine."""
        for frame, page in image.pages.items():
            self.engine.ram[frame * PAGE : (frame + 1) * PAGE] = page
            self._loaded[frame] = page
        executable, tables = mapped_frames(self.engine.ram, image.registers["cr3"])
        self._code = executable | tables
        """Pages whose change makes translated code stale."""
        self._breakpoints = Breakpoints(self.engine, frames, self._enter_long_mode(image))

    def _enter_long_mode(self, image: Image) -> bytes:
        engine, registers = self.engine, image.registers
        engine.write(x86_const.UC_X86_REG_CR4, registers["cr4"])
        engine.write(x86_const.UC_X86_REG_CR3, registers["cr3"])
        engine.write(x86_const.UC_X86_REG_MSR, (0xC000_0080, registers["efer"]))
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
        return Run(engine, image, self._breakpoints.disarm)

    def _load_pages(self, image: Image) -> None:
        stale = False
        ram, loaded = self.engine.ram, self._loaded
        for frame, page in image.pages.items():
            if loaded.get(frame) is not page:
                if ram[frame * PAGE : (frame + 1) * PAGE] != page:
                    ram[frame * PAGE : (frame + 1) * PAGE] = page
                    stale = stale or frame in self._code
                loaded[frame] = page
        if stale:
            self.engine.forget_code()

    def _poke_segments(self, image: Image) -> None:
        """Fill the descriptor caches and the CPL."""
        caches = descriptor_caches(image)
        self.engine.poke(f"{len(caches)}s", blob.SEGMENTS, caches)
        (hflags,) = self.engine.peek("<I", blob.HFLAGS)
        cpl = image.registers["cs"] & 3
        self.engine.poke("<I", blob.HFLAGS, hflags & ~(blob.HFLAG_CPL | blob.HFLAG_SHADOW) | cpl)

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
            held_by_engine=run.held_by_engine,
            asynchronous=asynchronous,
            end=end,
            detail=detail,
        )

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
