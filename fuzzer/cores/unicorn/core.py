"""The core `unicorn`: QEMU's instruction semantics as Unicorn packages them, events delivered by this adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import unicorn
from unicorn import x86_const

from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.engine import Engine
from fuzzer.cores.unicorn.run import Run
from fuzzer.cores.unicorn.segments import descriptor_caches
from fuzzer.cores.unicorn.walk import OutsideError, mapped_frames
from reference.image import PAGE, End, Image, Observation, Step

MODELS: Final = {
    "intel": x86_const.UC_CPU_X86_SKYLAKE_CLIENT,
    "amd": x86_const.UC_CPU_X86_EPYC,
    "intel-2012": x86_const.UC_CPU_X86_IVYBRIDGE,
}
"""The engine's CPU model for each profile."""

_STUB: Final = 0xFFFF_FF00_0000_0000
"""Where the adapter's own code is mapped while it sets breakpoints."""
_STUB_CODE: Final = bytes.fromhex("0f23f8")  # mov dr7, rax
_STUB_PAGES: Final = 5
_BREAKPOINTS: Final = 0xFF
_DISARMED: Final = 0x400
_GENERAL_DETECT: Final = 1 << 13


class UnicornCore:
    """Runs cases on the Unicorn wheel that is installed."""

    name = "unicorn"
    delivers_events = False

    def __init__(self) -> None:
        self.version: str = unicorn.__version__
        self._machines: dict[tuple[str, int], _Machine] = {}

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image to its end."""
        for image in images:
            machine = self._machine(image)
            try:
                run = machine.start(image)
            except OutsideError:
                yield Observation(End.UNSUPPORTED, detail="the image's descriptor table is not in its memory")
                continue
            while run.end is None:
                run.advance()
            yield machine.finish(run)

    def trace(self, image: Image) -> Iterator[Step]:
        """Run one image one boundary at a time."""
        machine = self._machine(image)
        try:
            run = machine.start(image)
        except OutsideError:
            return  # `run` tells why
        yield machine.view(run, 0, asynchronous=False)
        while run.end is None:
            known, retired = len(run.doorman.deliveries), run.retired
            run.raised, run.at_fetch, run.held_by_engine = "", False, False
            asynchronous = run.advance(most=1)
            while run.end is None and not run.raised and (known, retired) == (len(run.doorman.deliveries), run.retired):
                asynchronous = run.advance(most=1)
            yield machine.view(run, known, asynchronous)

    def _machine(self, image: Image) -> _Machine:
        frames = max(image.pages) + 1
        key = (image.profile.name, frames)
        if key not in self._machines or not self._machines[key].tidy():
            if image.profile.name not in MODELS:
                raise CoreError(f"unicorn: no CPU model for profile {image.profile.name!r}; known: {', '.join(MODELS)}")
            self._machines[key] = _Machine(MODELS[image.profile.name], frames, image)
        return self._machines[key]


class _Machine:
    """An engine with what it takes to put an image in and get an observation out."""

    def __init__(self, model: int, frames: int, image: Image) -> None:
        self.engine = Engine(model, frames + _STUB_PAGES)
        self._frames = frames
        self._loaded: dict[int, bytes | None] = {}
        self._running: Image | None = None
        self._armed = False
        self._spoiled = False
        """Breakpoints of the last run are still in the engine."""
        self._map_stub()
        for frame, page in image.pages.items():
            self.engine.ram[frame * PAGE : (frame + 1) * PAGE] = page
            self._loaded[frame] = page
        executable, tables = mapped_frames(self.engine.ram, image.registers["cr3"])
        self._code = executable | tables
        """Pages whose change makes translated code stale."""
        self._enter_long_mode(image)

    def _enter_long_mode(self, image: Image) -> None:
        engine, registers = self.engine, image.registers
        engine.write(x86_const.UC_X86_REG_CR4, registers["cr4"])
        engine.write(x86_const.UC_X86_REG_CR3, registers["cr3"])
        engine.write(x86_const.UC_X86_REG_MSR, (0xC000_0080, registers["efer"]))
        engine.write(x86_const.UC_X86_REG_CR0, registers["cr0"])
        engine.save()
        self._template = engine.state()

    def _map_stub(self) -> None:
        """Page tables and a page of code behind the machine's memory: the only way to arm a breakpoint is to run MOV DR7."""
        first = self._frames
        for level, shift in enumerate((39, 30, 21, 12)):
            entry = (first + level + 1) * PAGE | 0x63
            place = (first + level) * PAGE + (_STUB >> shift & 511) * 8
            self.engine.ram[place : place + 8] = entry.to_bytes(8, "little")
        start = (first + 4) * PAGE
        self.engine.ram[start : start + len(_STUB_CODE)] = _STUB_CODE

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
        engine.load_state(self._template)
        if registers["dr7"] & _BREAKPOINTS:
            engine.restore()
            engine.write_all({**registers, "dr7": _DISARMED})
            self._write_dr7(registers["dr7"])
            self._armed = True
        self._poke_segments(image)
        engine.restore()
        engine.write_all(registers)
        return Run(engine, image, lambda: self._write_dr7(_DISARMED))

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

    def _write_dr7(self, value: int) -> None:
        """Let the engine run MOV DR7: only that makes it insert and remove its breakpoints, which translated code has built in.

        The state saved at the end holds the engine's own pointers to them.
        """
        engine = self.engine
        before = engine.read(x86_const.UC_X86_REG_DR7)
        engine.write(x86_const.UC_X86_REG_DR7, before & ~_GENERAL_DETECT)
        engine.save()
        (hflags,) = engine.peek("<I", blob.HFLAGS)
        engine.poke("<I", blob.HFLAGS, hflags & ~blob.HFLAG_CPL)
        engine.restore()
        engine.write(x86_const.UC_X86_REG_RFLAGS, 2)
        engine.write(x86_const.UC_X86_REG_CR3, self._frames * PAGE)
        engine.write(x86_const.UC_X86_REG_RAX, value)
        stop = engine.run(_STUB, 1)
        if stop.vector is not None or stop.error or engine.read(x86_const.UC_X86_REG_RIP) != _STUB + len(_STUB_CODE):
            raise CoreError(f"unicorn: could not set DR7 to {value:#x}: {stop}")
        engine.save()

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
        if self._armed or self._breakpoints_on():
            try:
                self._write_dr7(_DISARMED)
            except CoreError:
                self._spoiled = True  # the run left the engine in a state that our code cannot run in, such as a CS with a base
            self._armed = False
        self._running = None

    def _breakpoints_on(self) -> bool:
        return bool(self.engine.read(x86_const.UC_X86_REG_DR7) & _BREAKPOINTS)
