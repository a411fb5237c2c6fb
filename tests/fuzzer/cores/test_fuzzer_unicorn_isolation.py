"""Page-table isolation: entry code that changes CR3 in the middle, two hierarchies of which user mode sees the smaller one."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from fuzzer_builders import entered, interrupt, nmi
from fuzzer_machines import COMPATIBILITY, machine, machine_check, observe, open_gate, with_pages

from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.cores.unicorn.pages import code_pages
from fuzzer.targets import layout, tables
from fuzzer.targets.layout import PAGE, Region
from fuzzer.targets.target import patch
from reference.image import End, Event, Image
from reference.run import run

KERNEL_CR3 = tables.CR3
FIRST = tables.FRAMES["page_tables"]
TABLES = tables.page_tables()
USER_CR3 = (FIRST + len(TABLES)) * PAGE
"""The root of a copy of the hierarchy, right behind the first."""
HIDDEN = (layout.KERNEL_CODE, layout.KERNEL_DATA)
"""Regions that the user's hierarchy does not map."""
ENTRY = layout.KERNEL_TEXT.start + 0x800
EXIT = layout.KERNEL_TEXT.start + 0x900
WORK = layout.KERNEL_CODE.start
DATA = layout.KERNEL_DATA.start


def user_tables(hidden: tuple[Region, ...]) -> dict[int, bytes]:
    """A copy of the page tables, less some regions."""
    shift = len(TABLES)
    copied = {}
    for frame, page in TABLES.items():
        words = list(struct.unpack("<512Q", page))
        for index, word in enumerate(words):
            if FIRST <= (word & 0xF_FFFF_FFFF_F000) >> 12 < FIRST + shift:
                words[index] = word + shift * PAGE
        copied[frame + shift] = bytearray(struct.pack("<512Q", *words))
    for region in hidden:
        for number in range(region.pages):
            place = tables.entry_offset(region.start + number * PAGE)
            struct.pack_into("<Q", copied[FIRST + shift + place // PAGE], place % PAGE, 0)
    return {frame: bytes(page) for frame, page in copied.items()}


def jump(at: int, to: int) -> bytes:
    return b"\xe9" + struct.pack("<i", to - (at + 5))


def isolated(code: str, *events: Event, work: str = "f3aa", hidden: tuple[Region, ...] = HIDDEN, **registers: int) -> Image:
    """User code whose INT 0x80 changes to the kernel's hierarchy, does `work` in code and on data that only it maps, and changes back."""
    entering = bytes.fromhex("b8") + struct.pack("<I", KERNEL_CR3) + bytes.fromhex("0f22d8")
    leaving = bytes.fromhex("b8") + struct.pack("<I", USER_CR3) + bytes.fromhex("0f22d8 48cf")
    doing = bytes.fromhex(work)
    memory = (
        *open_gate(0x80),
        patch(layout.KERNEL_TEXT, 0x120, bytes.fromhex("48cf")),  # the handler of machine checks returns
        patch(layout.KERNEL_TEXT, 0x800, entering + jump(ENTRY + len(entering), WORK)),
        patch(layout.KERNEL_TEXT, 0x900, leaving),
        patch(layout.KERNEL_CODE, 0, doing + jump(WORK + len(doing), EXIT)),
    )
    image = machine(code, memory=memory, events=events, rcx=3, rdi=DATA, **registers)
    return with_pages(image, user_tables(hidden), cr3=USER_CR3)


def test_code_behind_the_change_of_cr3_is_found_and_counted(core: UnicornCore) -> None:
    """INT; MOV, MOV CR3, JMP, MOV, three iterations, JMP, MOV, MOV CR3, IRETQ; NOP."""
    seen = observe(core, isolated("cd80 90", work="b05a f3aa"))

    assert (seen.end, seen.register("cr3"), seen.retired) == (End.ENDED, USER_CR3, 1 + 11 + 1)
    assert seen.memory[tables.FRAMES["kernel_data"]][:4] == bytes.fromhex("5a5a5a00")


@pytest.mark.parametrize("kind", ["interrupt", "nmi", "machine-check"])
def test_events_arrive_at_every_boundary_in_both_hierarchies(core: UnicornCore, kind: str) -> None:
    make = {"interrupt": interrupt, "nmi": nmi, "machine-check": machine_check}[kind]
    for boundary in range(14):
        image = isolated("cd80 90", make(boundary), rflags=0x202)

        spec, seen = run(image), observe(core, image)

        assert (seen.end, entered(seen)) == (spec.end, entered(spec)), boundary


def test_an_interrupt_waits_until_iretq_behind_the_change_back(core: UnicornCore) -> None:
    """Interrupts are off from the gate on: what arrives in the kernel's hierarchy is taken in the user's, behind IRETQ."""
    for boundary in range(1, 12):
        seen = observe(core, isolated("cd80 90", interrupt(boundary), rflags=0x202))

        assert [entry[:2] for entry in entered(seen)] == [(0, 0x80), (11, 0x21)], boundary


def test_a_second_nmi_waits_for_the_iretq_of_the_first(core: UnicornCore) -> None:
    seen = observe(core, isolated("cd80 90", nmi(4), nmi(5)))

    # The first handler is an IRETQ alone: the second NMI, pending while it runs, is taken right behind it.
    assert [entry[:2] for entry in entered(seen)] == [(0, 0x80), (4, 2), (5, 2)]


def test_delivery_from_user_mode_uses_the_users_hierarchy(core: UnicornCore) -> None:
    """The handler's stack is not mapped there: a page fault, another one entering its handler, and #DF on its own stack."""
    image = isolated("cd80 90", hidden=(*HIDDEN, layout.THREAD_STACK))

    spec, seen = run(image), observe(core, image)

    assert entered(seen) == entered(spec) == [(0, 8, 0, layout.USER_CODE.start, 3)]
    assert seen.register("cr2") == spec.register("cr2") == layout.THREAD_STACK.end - 8


@pytest.mark.parametrize("boundary", range(6))
def test_32_bit_code_enters_and_leaves_through_both_hierarchies(core: UnicornCore, boundary: int) -> None:
    seen = observe(core, isolated("40 cd80 40", nmi(boundary), rax=1, **COMPATIBILITY))

    assert (seen.end, seen.register("cr3"), seen.register("cs"), len(seen.deliveries)) == (End.ENDED, USER_CR3, layout.USER32_CS, 2)
    assert seen.register("rax") == USER_CR3 + 1


def test_code_that_only_the_kernels_hierarchy_maps_is_not_stale(core: UnicornCore) -> None:
    first, second = (isolated("cd80 90", work=code) for code in ("bb01000000", "bb02000000"))  # mov ebx, 1 / 2

    assert [observe(core, image).register("rbx") for image in (first, second, first, second)] == [1, 2, 1, 2]


def test_a_page_that_other_tables_make_executable_is_not_stale(core: UnicornCore) -> None:
    """One image runs code from a data page; in the next, with the same tables, that page holds other code."""
    frame = tables.FRAMES["kernel_data"]
    entry = patch(tables.PAGE_TABLES, tables.entry_offset(DATA), struct.pack("<Q", tables.leaf_entry(DATA) & ~tables.NO_EXECUTE))
    plain = machine("90", "kernel")
    page = bytearray(plain.pages[FIRST + entry.offset // PAGE])
    page[entry.offset % PAGE : entry.offset % PAGE + 8] = entry.data
    opened = {FIRST + entry.offset // PAGE: bytes(page)}
    images = [
        with_pages(machine("ffe0", "kernel", rax=DATA), {**opened, frame: bytes.fromhex(code).ljust(PAGE, b"\xcc")})
        for code in ("bb01000000cdf1", "bb02000000cdf1")
    ]

    seen = [observe(core, image).register("rbx") for image in (plain, *images, plain, *images)]

    assert seen == [0, 1, 2, 0, 1, 2]


def test_pages_of_both_hierarchies_are_known(core: UnicornCore) -> None:
    image = isolated("cd80 90")
    for cr3 in (USER_CR3, KERNEL_CR3):
        found = code_pages(image.pages, cr3)

        assert found.roots[0] == cr3
        assert {USER_CR3, KERNEL_CR3} <= set(found.roots)
        assert found.tables == frozenset(range(FIRST, FIRST + 2 * len(TABLES)))
        executable = {frame for region in layout.MAPPED if region.executable for frame in _frames(region)}
        assert found.stale == found.tables | executable


def _frames(region: Region) -> range:
    return range(tables.FRAMES[region.name], tables.FRAMES[region.name] + region.pages)


def test_a_core_shows_the_same_in_any_order(core: UnicornCore) -> None:
    images = [isolated("cd80 90", nmi(boundary)) for boundary in range(12)] + [machine("90", "kernel")]
    images += [dataclasses.replace(image, registers={**image.registers, "cr3": KERNEL_CR3}) for image in images[:4]]
    forwards = list(core.run(images))

    assert list(UnicornCore().run(images[::-1]))[::-1] == forwards


@pytest.mark.parametrize("boundary", [0, 3, 6, 9])
def test_a_trace_through_both_hierarchies_ends_as_the_run_does(core: UnicornCore, boundary: int) -> None:
    image = isolated("cd80 90", nmi(boundary), interrupt(boundary), rflags=0x202)
    seen = observe(core, image)

    last = list(core.trace(image))[-1]

    assert (last.end, last.registers, last.retired, dict(last.memory)) == (seen.end, seen.registers, seen.retired, dict(seen.memory))
