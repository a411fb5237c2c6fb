"""4-level paging: rights, reserved bits, error codes, accessed and dirty flags (SDM Vol. 3A, chapter 4)."""

from __future__ import annotations

import struct

import pytest
from reference_machine import (
    ACCESSED,
    DIRTY,
    FIRST_KERNEL_PAGE,
    FRAMES,
    GDT,
    IDT,
    KERNEL_DATA,
    KERNEL_READONLY,
    KERNEL_RSP,
    KERNEL_STACK,
    LARGE,
    LDT,
    NX,
    PRESENT,
    TSS,
    UNMAPPED,
    USER,
    USER_CODE,
    USER_DATA,
    USER_READONLY,
    USER_STACK,
    WRITABLE,
    frame,
    gate,
    handler,
    image,
    outcome,
    run,
)  # fmt: skip

from reference.image import Observation
from reference.profiles import Cr0, Cr4, Efer

READ, WRITE, JUMP = "488b00", "488900", "ffe0"  # mov rax, [rax]; mov [rax], rax; jmp rax
NXE_OFF = 0xD01 & ~Efer.NXE
WP_OFF = 0x8005_0033 & ~Cr0.WP
AC = 0x4_0000

NO_NX = {(1, page): (0, NX) for page in (USER_DATA, USER_DATA + 0x1000, USER_STACK, USER_STACK + 0x1000, USER_READONLY, FIRST_KERNEL_PAGE,
         KERNEL_DATA, KERNEL_DATA + 0x1000, KERNEL_STACK, KERNEL_STACK + 0x1000, KERNEL_READONLY, GDT, 0xFFFF_8880_0005_0000, IDT, TSS,
         *range(0xFFFF_8880_0008_0000, 0xFFFF_8880_0009_0000, 0x1000)) if page >> 12 in FRAMES}  # fmt: skip
"""No page has NX, so EFER.NXE may be 0."""


def access(code: str, address: int, cpl: int = 0, **parts: object) -> str:
    """What an access by `code` to `address` leads to."""
    return outcome(run(code, cpl, rax=address, **parts))


@pytest.mark.parametrize(
    ("code", "address", "cpl", "error"),
    [
        pytest.param(READ, UNMAPPED, 0, 0x0, id="kernel-read"),
        pytest.param(WRITE, UNMAPPED, 0, 0x2, id="kernel-write"),
        pytest.param(READ, UNMAPPED, 3, 0x4, id="user-read"),
        pytest.param(WRITE, UNMAPPED, 3, 0x6, id="user-write"),
        pytest.param(JUMP, UNMAPPED, 0, 0x10, id="kernel-fetch"),
        pytest.param(JUMP, UNMAPPED, 3, 0x14, id="user-fetch"),
    ],
)
def test_a_missing_page_says_what_the_access_was(code: str, address: int, cpl: int, error: int) -> None:
    ended = run(code, cpl, rax=address)

    assert (outcome(ended), ended.register("cr2")) == (f"#PF({error:#x})", address)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_an_entry_of_any_level_may_be_absent(level: int) -> None:
    assert access(READ, USER_DATA, paging={(level, USER_DATA): (0, PRESENT)}) == "#PF(0x0)"


@pytest.mark.parametrize(
    ("code", "address", "parts", "expected"),
    [
        pytest.param(READ, KERNEL_DATA, {"cpl": 3}, "#PF(0x5)", id="user-reads-a-supervisor-page"),
        pytest.param(WRITE, KERNEL_DATA, {"cpl": 3}, "#PF(0x7)", id="user-writes-a-supervisor-page"),
        pytest.param(JUMP, KERNEL_DATA, {"cpl": 3}, "#PF(0x15)", id="user-fetches-a-supervisor-page"),
        pytest.param(WRITE, USER_READONLY, {"cpl": 3}, "#PF(0x7)", id="user-writes-a-read-only-page"),
        pytest.param(WRITE, USER_READONLY, {"cpl": 3, "cr0": WP_OFF}, "#PF(0x7)", id="user-writes-a-read-only-page-without-wp"),
        pytest.param(READ, USER_READONLY, {"cpl": 3}, "ended", id="user-reads-a-read-only-page"),
        pytest.param(JUMP, USER_DATA, {"cpl": 3}, "#PF(0x15)", id="user-fetches-a-no-execute-page"),
        pytest.param(WRITE, KERNEL_READONLY, {}, "#PF(0x3)", id="kernel-writes-a-read-only-page-with-wp"),
        pytest.param(WRITE, KERNEL_READONLY, {"cr0": WP_OFF}, "ended", id="kernel-writes-a-read-only-page-without-wp"),
        pytest.param(WRITE, USER_READONLY, {"cr0": WP_OFF}, "ended", id="kernel-writes-a-read-only-user-page-without-wp"),
        pytest.param(WRITE, USER_READONLY, {}, "#PF(0x3)", id="kernel-writes-a-read-only-user-page-with-wp"),
        pytest.param(JUMP, KERNEL_DATA, {}, "#PF(0x11)", id="kernel-fetches-a-no-execute-page"),
        pytest.param(READ, USER_DATA, {}, "ended", id="kernel-reads-a-user-page"),
        pytest.param(READ, USER_DATA, {"cr4": 0x60 | Cr4.SMAP}, "#PF(0x1)", id="smap-forbids-the-read"),
        pytest.param(WRITE, USER_DATA, {"cr4": 0x60 | Cr4.SMAP}, "#PF(0x3)", id="smap-forbids-the-write"),
        pytest.param(READ, USER_DATA, {"cr4": 0x60 | Cr4.SMAP, "rflags": AC}, "ended", id="ac-lifts-smap"),
        pytest.param(READ, USER_DATA, {"cpl": 3, "cr4": 0x60 | Cr4.SMAP}, "ended", id="smap-is-not-for-user-mode"),
        pytest.param(WRITE, USER_READONLY, {"cr4": 0x60 | Cr4.SMAP, "cr0": WP_OFF}, "#PF(0x3)", id="smap-holds-without-wp"),
        pytest.param(WRITE, USER_READONLY, {"cr4": 0x60 | Cr4.SMAP, "rflags": AC}, "#PF(0x3)", id="ac-does-not-lift-wp"),
        pytest.param(JUMP, USER_CODE, {"cr4": 0x60 | Cr4.SMEP}, "#PF(0x11)", id="smep-forbids-the-fetch"),
        pytest.param(JUMP, USER_CODE, {"cr4": 0x60 | Cr4.SMEP, "rflags": AC}, "#PF(0x11)", id="ac-does-not-lift-smep"),
        pytest.param(JUMP, USER_CODE, {"cr4": 0x60 | Cr4.SMEP, "cpl": 3}, "not-ended", id="smep-is-not-for-user-mode"),
        pytest.param(READ, USER_CODE, {"cr4": 0x60 | Cr4.SMEP}, "ended", id="smep-is-for-fetches"),
    ],
)
def test_rights(code: str, address: int, parts: dict[str, int], expected: str) -> None:
    if expected == "not-ended":
        parts, expected = {**parts, "memory": {USER_CODE + 0x100: b"\xcd\xf1"}}, "ended"
        address += 0x100

    assert access(code, address, **parts) == expected


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("code", "cpl", "change", "expected"),
    [
        pytest.param(READ, 3, (0, USER), "#PF(0x5)", id="user"),
        pytest.param(WRITE, 3, (0, WRITABLE), "#PF(0x7)", id="writable"),
        pytest.param("ff10", 3, (NX, 0), "#PF(0x15)", id="no-execute"),
    ],
)
def test_a_right_must_be_given_at_every_level(level: int, code: str, cpl: int, change: tuple[int, int], expected: str) -> None:
    # The code is below the last user page's tables, so that taking a right there leaves it alone.
    last = 0x7FFF_FFFF_F000
    ended = run(code, cpl, rax=last, paging={(level, last): change}, memory={last: struct.pack("<Q", last + 8)})

    assert outcome(ended) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param({"efer": NXE_OFF, "cr4": 0x60}, "#PF(0x0)", id="neither-nxe-nor-smep"),
        pytest.param({"efer": NXE_OFF, "cr4": 0x60 | Cr4.SMEP}, "#PF(0x10)", id="smep"),
    ],
)
def test_the_fetch_bit_of_the_error_code_needs_nxe_or_smep(parts: dict[str, int], expected: str) -> None:
    assert access(JUMP, UNMAPPED, paging=NO_NX, **parts) == expected


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("bit", "parts"),
    [
        pytest.param(1 << 40, {}, id="first-address-bit-past-maxphyaddr"),
        pytest.param(1 << 51, {}, id="last-address-bit"),
        pytest.param(NX, {"efer": NXE_OFF, "paging": NO_NX}, id="nx-without-nxe"),
    ],
)
def test_reserved_bits_fault_at_every_level(level: int, bit: int, parts: dict[str, object]) -> None:
    last = 0x7FFF_FFFF_F000
    paging = {**parts.get("paging", {}), (level, last): (bit, 0)}  # type: ignore[dict-item]

    assert access(READ, last, **{**parts, "paging": paging}) == "#PF(0x9)"
    assert access(WRITE, last, 3, **{**parts, "paging": paging}) == "#PF(0xf)"


def test_bits_that_are_ignored_or_in_the_address_are_no_reserved_bits() -> None:
    ignored = 0xE00 | 1 << 52 | 1 << 58

    assert access(READ, USER_DATA, paging={(1, USER_DATA): (ignored, 0)}) == "ended"
    assert access(READ, USER_DATA, paging={(1, USER_DATA): (1 << 39, 0)}) == "not modelled: physical address outside memory"


def test_the_page_size_bit_is_reserved_in_a_pml4_entry() -> None:
    assert access(READ, 0x7FFF_FFFF_F000, paging={(4, 0x7FFF_FFFF_F000): (LARGE, 0)}) == "#PF(0x9)"


@pytest.mark.parametrize("level", [2, 3])
def test_large_pages_are_not_modelled(level: int) -> None:
    assert access(READ, 0x7FFF_FFFF_F000, paging={(level, 0x7FFF_FFFF_F000): (LARGE, 0)}) == "not modelled: large page"


def test_the_page_size_bit_of_the_last_level_means_something_else() -> None:
    assert access(READ, USER_DATA, paging={(1, USER_DATA): (LARGE, 0)}) == "ended"


def entry(ended: Observation, linear: int, made_frame: int) -> int:
    """The last-level entry of `linear`, found by the frame it maps."""
    for frame_number, page in ended.memory.items():
        if frame_number < 0x200:
            continue
        found: int = struct.unpack_from("<Q", page, (linear >> 12 & 0x1FF) * 8)[0]
        if found >> 12 & 0xFFFFF == made_frame:
            return found
    raise AssertionError("no page table changed")


@pytest.mark.parametrize(("code", "flags"), [pytest.param(READ, ACCESSED, id="read"), pytest.param(WRITE, ACCESSED | DIRTY, id="write")])
def test_an_access_sets_accessed_and_a_write_dirty(code: str, flags: int) -> None:
    ended = run(code, rax=KERNEL_DATA, paging={(1, KERNEL_DATA): (0, ACCESSED | DIRTY)})

    assert entry(ended, KERNEL_DATA, FRAMES[KERNEL_DATA >> 12]) & (ACCESSED | DIRTY) == flags


def test_accessed_is_set_at_every_level_and_dirty_only_at_the_last() -> None:
    last = 0x7FFF_FFFF_F000
    before = image(WRITE, rax=last, paging={(level, last): (0, ACCESSED | DIRTY) for level in (1, 2, 3, 4)})
    ended = run(WRITE, rax=last, paging={(level, last): (0, ACCESSED | DIRTY) for level in (1, 2, 3, 4)})

    changes = []
    for number, page in ended.memory.items():
        old, new = (struct.unpack("<512Q", data) for data in (before.pages[number], page))
        changes += [a ^ b for a, b in zip(old, new, strict=True) if a != b and number >= 0x200]
    assert sorted(changes) == [ACCESSED, ACCESSED, ACCESSED, ACCESSED | DIRTY]


def test_a_fault_leaves_accessed_and_dirty_alone() -> None:
    ended = run(WRITE, 3, rax=USER_READONLY, paging={(1, USER_READONLY): (0, ACCESSED | DIRTY)})

    assert [number for number in ended.memory if number >= 0x200] == []


def test_a_frame_pushed_from_user_mode_is_a_supervisor_write() -> None:
    supervisor = run("0f0b", 3)
    user_stack = {(1, KERNEL_STACK): (USER, 0), (1, KERNEL_STACK + 0x1000): (USER, 0)}

    assert frame(supervisor).rip == USER_CODE
    assert outcome(run("0f0b", 3, paging={(1, KERNEL_STACK + 0x1000): (0, WRITABLE)}, idt={14: gate(handler(14), ist=2)})) == "#PF(0x3)"
    assert outcome(run("0f0b", 3, paging=user_stack, cr4=0x60 | Cr4.SMAP, idt={14: gate(handler(14), ist=2)})) == "#PF(0x3)"


def test_smap_holds_for_system_structures_even_with_ac() -> None:
    parts = {"cr4": 0x60 | Cr4.SMAP, "rflags": AC | 2, "rcx": 0xC}
    ist = {0x72: gate(handler(0x72), ist=1)}

    # mov ds, ecx reads the LDT, mov rax, [rax] does so as any program; int 0x72 reads the TSS; then the IDT itself
    assert outcome(run("8ed9", paging={(1, LDT): (USER, 0)}, **parts)) == "#PF(0x1)"
    assert outcome(run(READ, rax=LDT, paging={(1, LDT): (USER, 0)}, **parts)) == "ended"
    assert outcome(run("cd72", paging={(1, TSS): (USER, 0)}, idt=ist, **parts)) == "#PF(0x1)"
    assert outcome(run("cd72", paging={(1, IDT): (USER, 0)}, **parts)) == "shutdown"


def test_system_structures_are_read_as_supervisor_whatever_the_cpl_is() -> None:
    assert outcome(run("8ed9", 3, rcx=0xF, ldt={0xF: 0x00CF_F300_0000_FFFF})) == "ended"


def test_a_stack_page_is_like_any_other() -> None:
    assert outcome(run("50", rsp=UNMAPPED, idt={14: gate(handler(14), ist=1)})) == "#PF(0x2)"
    assert outcome(run("58", rsp=KERNEL_RSP, paging={(1, KERNEL_RSP): (0, PRESENT)}, idt={14: gate(handler(14), ist=1)})) == "#PF(0x0)"
