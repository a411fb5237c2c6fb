"""Cases for the tests of the fuzzer, built by naming only what a test is about; and both sides run at once."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from random import Random

from hypothesis import strategies as st

from fuzzer.build import build
from fuzzer.case import Case, canonical, decode
from fuzzer.cores.core import Core
from fuzzer.generate.generator import generate
from fuzzer.targets import layout, tables
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.snippets import CODE_REGIONS, END
from fuzzer.targets.target import Patch, patch
from reference import run as reference_run
from reference.image import PAGE, Event, EventKind, Image, Observation
from reference.profiles import PROFILES

ALL_PROFILES = tuple(PROFILES)

Key = list[tuple[int, int, int | None, int, int]]


def snippet(
    code: str,
    scenario: str = "kernel",
    profile: str = "intel",
    events: Iterable[Event] = (),
    memory: Iterable[Patch] = (),
    **registers: int,
) -> Case:
    """A case of the target `snippets` that runs the instructions in `code` (hex) and then ends."""
    region = CODE_REGIONS[scenario]
    placed = patch(region, 0, bytes.fromhex(code) + END)
    pairs = tuple({"rip": region.start, **registers}.items())
    return canonical(Case("snippets", scenario, profile, pairs, (placed, *memory), tuple(events)))


def linux4(scenario: str, *events: Event, profile: str = "intel") -> Case:
    """A case of the target `linux4` that differs from its scenario in what arrives."""
    return canonical(Case("linux4", scenario, profile, events=events))


def interrupt(boundary: int, vector: int = 0x21) -> Event:
    return Event(boundary, EventKind.INTERRUPT, vector)


def nmi(boundary: int) -> Event:
    return Event(boundary, EventKind.NMI, 2)


def both(core: Core, case: Case) -> tuple[Observation, Observation]:
    """What the specification and the core observe."""
    image = build(case)
    return reference_run.run(image), next(iter(core.run([image])))


def entered(observation: Observation) -> Key:
    """The handlers entered, as values: (boundary, vector, error code, saved RIP, CPL)."""
    return [(each.boundary, each.vector, each.error_code, each.rip, each.cpl) for each in observation.deliveries]


def words_at(image: Image, observation: Observation, region: layout.Region, linear: int, count: int) -> tuple[int, ...]:
    """Words of a region at the end of a run."""
    offset = linear - region.start
    frame = tables.FRAMES[region.name] + offset // PAGE
    page = observation.memory.get(frame, image.pages[frame])
    return struct.unpack_from(f"<{count}Q", page, offset % PAGE)


def random_bytes(rng: Random) -> bytes:
    """Bytes that no generator made: at times nothing but noise, at times a head and whole records with noise in them."""
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(120))
    return rng.randbytes(3) + b"".join(_random_record(rng) for _ in range(rng.randrange(6)))


def _random_record(rng: Random) -> bytes:
    kind = rng.randrange(3)
    if kind == 0:
        return b"\0" + rng.randbytes(9)
    if kind == 1:
        data = rng.randbytes(rng.randrange(24))
        return b"\1" + rng.randbytes(3) + bytes([len(data)]) + data
    return b"\2" + struct.pack("<H", rng.randrange(60)) + rng.randbytes(2)


def damaged_tables(rng: Random) -> Case:
    """A case whose paging structures, descriptors or gates have bytes changed where they mean something."""
    target = rng.choice(tuple(TARGETS))
    pieces = []
    for _ in range(rng.randrange(1, 4)):
        region = rng.choice((tables.PAGE_TABLES, tables.PAGE_TABLES, layout.GDT, layout.LDT, layout.IDT, layout.PERCPU))
        frame = tables.FRAMES[region.name] + rng.randrange(region.pages)
        page = TARGETS[target].pages[frame]
        used = [offset for offset in range(PAGE) if page[offset]]
        start = (frame - tables.FRAMES[region.name]) * PAGE + rng.choice(used)
        pieces.append(Patch(region.name, start, rng.randbytes(rng.choice((1, 1, 2, 8)))))
    events = (Event(rng.randrange(10), rng.choice(tuple(EventKind)), 0x21),)
    scenario = rng.choice(TARGETS[target].scenarios).name
    return canonical(Case(target, scenario, rng.choice(ALL_PROFILES), (), tuple(pieces), events))


def generated(seed: int, count: int, targets: Sequence[str] = tuple(TARGETS)) -> list[Case]:
    """`count` different generated cases, targets and profiles interleaved."""
    cases: dict[str, Case] = {}
    number = 0
    while len(cases) < count:
        case = generate(seed, targets[number % len(targets)], ALL_PROFILES, number // len(targets))
        cases[case.digest] = case
        number += 1
    return list(cases.values())


def case_bytes() -> st.SearchStrategy[bytes]:
    """Heads and whole records of all three kinds: plain random bytes seldom hold many."""
    register = st.binary(min_size=9, max_size=9).map(lambda body: b"\0" + body)
    piece = st.tuples(st.binary(min_size=3, max_size=3), st.binary(max_size=40)).map(lambda p: b"\1" + p[0] + bytes([len(p[1])]) + p[1])
    event = st.binary(min_size=4, max_size=4).map(lambda body: b"\2" + body)
    records = st.lists(register | piece | event, max_size=12).map(b"".join)
    return st.binary(max_size=200) | st.builds(lambda head, body: head + body, st.binary(min_size=3, max_size=3), records)


def cases() -> st.SearchStrategy[Case]:
    """Canonical cases of every kind."""
    return case_bytes().map(decode)
