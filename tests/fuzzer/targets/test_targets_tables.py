"""The two hierarchies of page tables: what the kernel sees, and what is left of it for user mode."""

from __future__ import annotations

import struct

import pytest

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.targets import layout, tables
from fuzzer.targets.layout import PAGE, Region

PAGES = tables.page_tables()
HIDDEN = (layout.LOG, layout.CONTROL, layout.KERNEL_DATA, layout.THREAD_STACK, layout.IRQ_STACK)


def leaf(cr3: int, linear: int) -> int:
    """The entry that maps a page, or 0 (SDM Vol. 3A, 5.5.4)."""
    table = cr3 // PAGE
    for shift in (39, 30, 21):
        entry = entry_of(table, linear >> shift & 0x1FF)
        if not entry & tables.PRESENT:
            return 0
        table = (entry & 0x000F_FFFF_FFFF_F000) // PAGE
    return entry_of(table, linear >> 12 & 0x1FF)


def entry_of(table: int, index: int) -> int:
    value: int = struct.unpack_from("<Q", PAGES[table], index * 8)[0]
    return value


def test_the_two_hierarchies_are_one_bit_of_cr3_apart() -> None:
    assert tables.CR3 ^ tables.USER_CR3 == PAGE


@pytest.mark.parametrize("region", layout.MAPPED, ids=lambda region: region.name)
def test_the_kernel_maps_every_page_of_a_region(region: Region) -> None:
    frames = [leaf(tables.CR3, region.start + number * PAGE) >> 12 & 0xFFFFF for number in range(region.pages)]

    assert frames == [tables.FRAMES[region.name] + number for number in range(region.pages)]


@pytest.mark.parametrize("region", layout.MAPPED, ids=lambda region: region.name)
def test_user_modes_tables_map_the_same_page_with_the_same_rights_or_none(region: Region) -> None:
    for number in range(region.pages):
        linear = region.start + number * PAGE
        seen = number < layout.USER_VIEW.get(region, 0)
        assert leaf(tables.USER_CR3, linear) == (leaf(tables.CR3, linear) if seen else 0)


@pytest.mark.parametrize("region", HIDDEN, ids=lambda region: region.name)
def test_user_modes_tables_hide_what_only_the_kernel_needs(region: Region) -> None:
    assert region not in layout.USER_VIEW


@pytest.mark.parametrize("region", [layout.USER_CODE, layout.USER_EDGE], ids=lambda region: region.name)
def test_an_isolating_kernel_cannot_run_user_code_on_its_own_tables(region: Region) -> None:
    pages = build(Case("linux4", "int3-from-user", "intel-pti")).pages

    for cr3, blocked in ((tables.CR3, True), (tables.USER_CR3, False)):
        top = struct.unpack_from("<Q", pages[cr3 // PAGE], (region.start >> 39 & 0x1FF) * 8)[0]
        assert bool(top & tables.NO_EXECUTE) == blocked


def test_a_target_without_isolation_begins_on_the_kernels_tables() -> None:
    assert build(Case("snippets", "user", "intel-pti")).registers["cr3"] == tables.CR3
