"""What every core has to keep, whoever wrote it: run against any core, with expectations from the manual and from the seam.

A core may refuse what it cannot express with `End.UNSUPPORTED`: a check of it is then skipped, with what the core said.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fuzzer.build import build
from fuzzer.case import Case, canonical
from fuzzer.cores.core import Core
from fuzzer.targets import layout
from fuzzer.targets.tables import FRAMES
from fuzzer.targets.target import Patch
from reference.image import GPRS, PAGE, REGISTERS, End, Event, EventKind, Image, Observation

END: Final = bytes([0xCD, layout.END_VECTOR])
NOP: Final = b"\x90"
NOPS: Final = 12
"""Boundaries over which arrival is tried."""


@dataclass(frozen=True, slots=True)
class Check:
    """A promise by name; `broken` runs it and says what is wrong, nothing where all is well."""

    name: str
    promise: str
    broken: Callable[[Core], str]


class Unsupported(Exception):
    """The core cannot express what the check is about, and says so."""


@dataclass(frozen=True, slots=True)
class Result:
    """A check that was run: `ok`, `broken` or `skipped`, and what there is to say."""

    name: str
    promise: str
    state: str
    detail: str = ""


def check_core(core: Core) -> list[Result]:
    """Run every check; a core conforms if none is broken."""
    return [checked_one(core, check) for check in CHECKS]


def checked_one(core: Core, check: Check) -> Result:
    """Run one check."""
    try:
        wrong = check.broken(core)
    except Unsupported as reason:
        return Result(check.name, check.promise, "skipped", str(reason))
    return Result(check.name, check.promise, "broken" if wrong else "ok", wrong)


# Machines to run


def kernel(code: bytes, events: Sequence[Event] = (), **registers: int) -> Image:
    """Code at CPL 0, with the stack, tables and handlers of the target `snippets`."""
    return _image("kernel", layout.KERNEL_CODE.name, code, events, registers)


def user(code: bytes, events: Sequence[Event] = (), **registers: int) -> Image:
    """The same at CPL 3."""
    return _image("user", layout.USER_CODE.name, code, events, registers)


def _image(scenario: str, region: str, code: bytes, events: Sequence[Event], registers: dict[str, int]) -> Image:
    pieces = (Patch(region, 0, code),)
    return build(canonical(Case("snippets", scenario, "intel", tuple(registers.items()), pieces, tuple(events))))


def seen(core: Core, image: Image) -> Observation:
    """What the core observes; Unsupported where it cannot run this."""
    (observation,) = core.run([image])
    if observation.end is End.UNSUPPORTED:
        raise Unsupported(observation.detail)
    return observation


# Checks


def _reports_registers(core: Core) -> str:
    """A run that only ends leaves every register as it began."""
    wanted = {name: 0x0102_0304_0506_0000 + number for number, name in enumerate(GPRS) if name != "rsp"}
    image = kernel(END, (), **wanted)
    observation = seen(core, image)
    expected = {**image.registers, "rip": image.registers["rip"] + len(END)}
    if observation.end is not End.ENDED:
        return f"ended as {observation.end}, not as {End.ENDED}"
    seen_as = dict(zip(REGISTERS, observation.registers, strict=True))
    return "; ".join(f"{name} is {value:#x}, not {expected[name]:#x}" for name, value in seen_as.items() if value != expected[name])


def _reports_memory(core: Core) -> str:
    """A store is reported as the whole page that it changed, and no other page."""
    address = layout.KERNEL_DATA.start + 0x18
    observation = seen(core, kernel(bytes.fromhex("488918") + END, rax=address, rbx=0x1122_3344_5566_7788))  # mov [rax], rbx
    frame = FRAMES[layout.KERNEL_DATA.name]
    if list(observation.memory) != [frame]:
        return f"changed pages {sorted(observation.memory)}, not {[frame]}"
    word = observation.memory[frame][0x18:0x20]
    return "" if word == struct.pack("<Q", 0x1122_3344_5566_7788) else f"the stored word is {word.hex()}"


def _reports_faults(core: Core) -> str:
    """A store from CPL 3 to a kernel page is #PF with error code 7, CR2 its address, RIP the instruction (SDM Vol. 3A, 5.7, 7.15)."""
    address = layout.KERNEL_DATA.start
    observation = seen(core, user(bytes.fromhex("488918") + END, rax=address))
    frame = FRAMES[layout.THREAD_STACK.name] + layout.THREAD_STACK.pages - 1
    if frame not in observation.memory:
        return "no frame on the stack of RSP0"
    pushed = struct.unpack("<6Q", observation.memory[frame][-48:])
    if observation.register("cr2") != address:
        return f"CR2 is {observation.register('cr2'):#x}, not {address:#x}"
    wanted = (7, layout.USER_CODE.start, layout.USER_CS)
    return "" if pushed[:3] == wanted else f"error code, RIP and CS in the frame are {pushed[:3]}, not {wanted}"


def _halts(core: Core) -> str:
    """HLT with nothing to wake it ends as halted, behind the instruction."""
    observation = seen(core, kernel(b"\xf4" + END))
    expected = layout.KERNEL_CODE.start + 1
    if observation.end is not End.HALTED:
        return f"ended as {observation.end}"
    return "" if observation.register("rip") == expected else f"RIP is {observation.register('rip'):#x}, not {expected:#x}"


def _gives_up(core: Core) -> str:
    """An endless loop does not end."""
    end = seen(core, kernel(b"\xeb\xfe")).end
    return "" if end is End.DID_NOT_END else f"ended as {end}"


def _shuts_down(core: Core) -> str:
    """An exception without an IDT to deliver it, or to deliver that, is a shutdown (SDM Vol. 3A, 7.15, interrupt 8)."""
    end = seen(core, kernel(b"\x0f\x0b" + END, idtr_limit=0)).end
    return "" if end is End.SHUTDOWN else f"ended as {end}"


def _arrives(kind: EventKind, vector: int) -> Callable[[Core], str]:
    def broken(core: Core) -> str:
        start = layout.KERNEL_CODE.start
        images = [kernel(NOP * NOPS + END, (Event(k, kind, vector),)) for k in range(NOPS)]
        for k, (image, observation) in enumerate(zip(images, core.run(images), strict=True)):
            if observation.end is End.UNSUPPORTED:
                raise Unsupported(observation.detail)
            saved = _saved_rips(image, observation)
            if start + k not in saved:
                return f"boundary {k}: no frame that returns to {start + k:#x}, but to {[hex(rip) for rip in saved]}"
        return ""

    return broken


def _saved_rips(image: Image, observation: Observation) -> list[int]:
    """Words in changed pages of stacks that point into the code."""
    stacks = [name for name in FRAMES if name.endswith(("_stack", "_stacks"))]
    frames = {FRAMES[name] + page for name in stacks for page in range(2)}
    words = [
        struct.unpack_from("<Q", page, offset)[0]
        for frame, page in observation.memory.items()
        if frame in frames
        for offset in range(0, PAGE, 8)
        if page[offset : offset + 8] != image.pages[frame][offset : offset + 8]
    ]
    code = layout.KERNEL_CODE
    return [word for word in words if code.start <= word < code.end]


def _mixed() -> list[Image]:
    """Machines that would show in each other if anything were left behind."""
    store = bytes.fromhex("488918")
    address = layout.KERNEL_DATA.start
    return [
        kernel(END),
        kernel(store + END, rax=address, rbx=0xAAAA),
        kernel(bytes.fromhex("488b18") + END, rax=address),  # mov rbx, [rax]
        kernel(b"\xf4" + END),
        user(store + END, rax=address),
        kernel(bytes.fromhex("0f01f8") + END),  # swapgs
        kernel(NOP * 4 + END, (Event(2, EventKind.NMI),)),
        kernel(NOP * 4 + END, (Event(1, EventKind.INTERRUPT, 0x40),)),
        kernel(NOP * 4 + END, (Event(1, EventKind.INTERRUPT, 0x40),), rflags=2),
        kernel(b"\x0f\x0b" + END, idtr_limit=0),
        kernel(b"\xeb\xfe"),
        user(bytes.fromhex("0f0b") + END),
    ]


def _plain(observation: Observation) -> tuple[object, ...]:
    return observation.end, observation.registers, dict(observation.memory)


def _leaves_nothing(core: Core) -> str:
    """The same machines in two orders, as one batch and one by one, give the same observations."""
    images = _mixed()
    batch = [_plain(each) for each in core.run(images)]
    backwards = [_plain(each) for each in core.run(images[::-1])][::-1]
    single = [_plain(each) for image in images for each in core.run([image])]
    for number, three in enumerate(zip(batch, backwards, single, strict=True)):
        if three[0] != three[1]:
            return f"machine {number} ends otherwise behind other machines"
        if three[0] != three[2]:
            return f"machine {number} ends otherwise in a batch than alone"
    return ""


def _traces(core: Core) -> str:
    """The last step of a trace is where the run ends; `retired` never falls, and the start is the image."""
    image = kernel(NOP * 3 + bytes.fromhex("48ffc0") + END, rax=41)  # inc rax
    observation, steps = seen(core, image), list(core.trace(image))
    if not steps:
        return "no steps"
    if steps[0].registers[REGISTERS.index("rip")] != image.registers["rip"]:
        return "the first step is not the start"
    counts = [step.retired for step in steps]
    if counts != sorted(counts):
        return f"retired falls: {counts}"
    if steps[-1].end is not observation.end or steps[-1].registers[0] != 42:
        return f"ends as {steps[-1].end} with RAX {steps[-1].registers[0]}, the run as {observation.end} with {observation.register('rax')}"
    return ""


CHECKS: Final = tuple(
    Check(name, " ".join((broken.__doc__ or promise).split()), broken)
    for name, broken, promise in (
        ("registers", _reports_registers, ""),
        ("memory", _reports_memory, ""),
        ("faults", _reports_faults, ""),
        ("halted", _halts, ""),
        ("did-not-end", _gives_up, ""),
        ("shutdown", _shuts_down, ""),
        ("nmi-arrival", _arrives(EventKind.NMI, 2), "An NMI due at boundary k returns to the instruction at boundary k."),
        (
            "interrupt-arrival",
            _arrives(EventKind.INTERRUPT, 0x40),
            "An interrupt due at boundary k returns to the instruction at boundary k.",
        ),
        ("nothing-left", _leaves_nothing, ""),
        ("trace", _traces, ""),
    )
)
"""In the order in which a new core learns them."""
