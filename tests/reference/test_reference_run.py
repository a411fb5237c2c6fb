"""How a run ends, and what it reports."""

from __future__ import annotations

from dataclasses import replace

import pytest
from reference_machine import (
    FRAMES,
    GDT,
    HANDLERS,
    KERNEL_CODE,
    KERNEL_DATA,
    KERNEL_READONLY,
    LDT,
    NX,
    TSS,
    UNMAPPED,
    USER_DATA,
    WRITABLE,
    gate,
    handler,
    image,
    interrupt,
    outcome,
    outcomes,
    q,
    run,
)  # fmt: skip

from reference.boot import boot, registers_of
from reference.image import REGISTERS, SEGMENTS, End
from reference.profiles import Cr4
from reference.run import run as run_image


def test_a_run_reports_the_registers_that_the_ending_interrupt_found() -> None:
    ended = run("48ffc0", 3, rax=4, rflags=0x202)

    assert [ended.register(name) for name in ("rax", "rip", "rflags", "cs")] == [5, 0x40_0005, 0x206, 0x33]


def test_a_run_reports_only_pages_that_changed() -> None:
    written = run("c60001", rax=KERNEL_DATA)  # mov byte [rax], 1
    same = run("c60001", rax=KERNEL_DATA, memory={KERNEL_DATA: b"\1"})

    assert list(written.memory) == [FRAMES[KERNEL_DATA >> 12]]
    assert same.memory == {}


def test_scratch_pages_are_left_out() -> None:
    made = replace(image("c60001", rax=KERNEL_DATA), scratch=frozenset({FRAMES[KERNEL_DATA >> 12]}))

    assert run_image(made).memory == {}


def test_the_image_is_never_written() -> None:
    made = image("c60001", rax=KERNEL_DATA)

    assert run_image(made) == run_image(made)


def test_a_run_that_does_not_end_is_given_up_after_the_limit() -> None:
    ended = run("ebfe", limit=37)

    assert (ended.end, ended.retired) == (End.DID_NOT_END, 37)


def test_a_handler_whose_own_fetch_faults_for_ever_is_given_up_too() -> None:
    ended = run("0f0b", limit=20, idt={14: gate(handler(14), ist=1), 6: gate(handler(6), ist=1)}, paging={(1, HANDLERS): (NX, 0)})

    assert (ended.end, len(ended.deliveries)) == (End.DID_NOT_END, 20)


def test_a_string_instruction_stops_at_the_limit() -> None:
    ended = run("f3aa", limit=10, rcx=1000, rdi=KERNEL_DATA)

    assert ended.end is End.DID_NOT_END
    assert 1000 - ended.register("rcx") <= 12


@pytest.mark.parametrize(
    ("code", "retired"),
    [
        pytest.param("90", 1, id="one-instruction"),
        pytest.param("f3aa", 3, id="each-iteration-counts"),
        pytest.param("0f0b", 0, id="a-fault-does-not"),
    ],
)
def test_retired_counts_what_completed_before_the_ending_interrupt(code: str, retired: int) -> None:
    assert run(code, rcx=3, rdi=KERNEL_DATA).retired == retired


def test_an_unknown_instruction_ends_the_run_by_name() -> None:
    assert outcome(run("0fa2", rax=1)) == "not modelled: cpuid leaf other than 0"
    assert outcome(run("0f31")) == "not modelled: rdtsc"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"gdtr_limit": 0x0F}, id="cs-past-the-gdt-limit"),
        pytest.param({"cr3": 0x5000_0000}, id="no-page-tables"),
        pytest.param({"gdtr_base": UNMAPPED}, id="gdt-not-mapped"),
    ],
)
def test_a_machine_whose_registers_cannot_be_loaded_is_not_modelled(parts: dict[str, int]) -> None:
    assert outcome(run("90", **parts)).startswith("not modelled: initial state")


def test_hidden_parts_come_from_the_descriptor_tables() -> None:
    machine = boot(image(fs=0x2B, fs_base=0x1234, gs_base=5, ds=0x2B))

    assert (machine.cs.descriptor.long, machine.ds.limit, machine.fs.base, machine.gs.base) == (True, 0xFFFF_FFFF, 0x1234, 5)
    assert (machine.tr.base, machine.tr.limit, machine.ldtr.base, machine.ldtr.limit) == (TSS, 0x67, LDT, 0x3F)
    assert [machine.es.usable, machine.ds.usable, machine.ss.usable] == [False, True, True]


@pytest.mark.parametrize("selector", [0, 0xF8])
def test_a_null_or_unreachable_ldtr_is_unusable(selector: int) -> None:
    assert not boot(image(ldtr=selector)).ldtr.usable


def test_every_register_of_an_image_is_reported_as_it_was() -> None:
    kept = {"rflags", "cr0", "cr3", "cr4", "efer", *SEGMENTS, "ldtr", "tr", "gdtr_base", "gdtr_limit"}
    made = image("", **{name: 0x11 * n for n, name in enumerate(REGISTERS) if name not in kept}, rflags=0x246)

    assert dict(zip(REGISTERS, registers_of(boot(made)), strict=True)) == made.registers


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        pytest.param("480100", {"rax": UNMAPPED}, id="add-to-memory"),
        pytest.param("f718", {"rax": UNMAPPED}, id="neg-memory"),
        pytest.param("488718", {"rax": UNMAPPED}, id="xchg-memory"),
        pytest.param("d120", {"rax": UNMAPPED}, id="shl-memory"),
        pytest.param("0fab08", {"rax": UNMAPPED}, id="bts-memory"),
    ],
)
def test_whether_a_read_modify_write_faults_as_a_read_or_a_write_is_open(code: str, parts: dict[str, int]) -> None:
    assert outcome(run(code, **parts)) == "not modelled: page fault of a read-modify-write"


@pytest.mark.parametrize(
    ("code", "address", "expected"),
    [
        pytest.param("480100", KERNEL_READONLY, "#PF(0x3)", id="read-only-page"),
        pytest.param("480100", 1 << 62, "#GP(0x0)", id="not-canonical"),
        pytest.param("488900", UNMAPPED, "#PF(0x2)", id="plain-write"),
        pytest.param("483900", UNMAPPED, "#PF(0x0)", id="cmp-only-reads"),
        pytest.param("8f00", UNMAPPED, "#PF(0x2)", id="pop-only-writes"),
    ],
)
def test_other_accesses_say_what_they_were(code: str, address: int, expected: str) -> None:
    assert outcome(run(code, rax=address)) == expected


def test_translations_do_not_survive_a_change_of_what_they_depend_on() -> None:
    # mov [rax], bl; mov cr0, rcx; mov [rax], bl
    ended = run("8818 0f22c1 8818", rax=KERNEL_READONLY, rcx=0x8005_0033, cr0=0x8004_0033)

    assert (outcome(ended), ended.deliveries[0].rip) == ("#PF(0x3)", KERNEL_CODE + 5)


def test_rflags_ac_changes_what_smap_allows_from_one_instruction_to_the_next() -> None:
    # stac; mov bl, [rax]; clac; mov bl, [rax]
    ended = run("0f01cb 8a18 0f01ca 8a18", rax=USER_DATA, cr4=0x60 | Cr4.SMAP)

    assert (outcome(ended), ended.deliveries[0].rip) == ("#PF(0x1)", KERNEL_CODE + 8)


def test_code_that_is_overwritten_runs_as_it_is_now() -> None:
    writable = {(1, KERNEL_CODE): (WRITABLE, 0)}

    # mov word [rip], 0x9090 overwrites the ud2 behind it; mov byte [rip - 8], 0xf4 the nop before it; jmp there
    assert outcome(run("66c705000000009090 0f0b", paging=writable)) == "ended"
    assert run("90 c605f8ffffff f4 ebf6", paging=writable).end is End.HALTED


def test_events_see_boundaries_inside_a_string_instruction() -> None:
    ended = run("f3aa", rcx=100, rdi=KERNEL_DATA, rflags=0x202, events=(interrupt(60),))

    assert (outcomes(ended), ended.register("rcx")) == (["vector 0x72"], 40)


def test_a_stored_descriptor_is_seen_by_the_next_load() -> None:
    # mov [rbx], rax; mov ds, ecx
    ended = run("488903 8ed9", rax=0x00CF_9300_0000_FFFF, rbx=GDT + 0x60, rcx=0x60, memory={GDT + 0x60: q(0)})

    assert (outcome(ended), ended.register("ds")) == ("ended", 0x60)
