"""IRET in 64-bit mode: its checks in order, the flags it returns, and what it does to the data segments (SDM Vol. 2A, IRET)."""

from __future__ import annotations

import pytest
from reference_machine import (
    CODE,
    CONFORMING,
    DATA,
    DATA_NOT_ACCESSED,
    GDT,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_DATA,
    KERNEL_DS,
    KERNEL_RSP,
    KERNEL_STACK,
    LAST_USER_PAGE,
    NOT_CANONICAL,
    PRESENT,
    READ_ONLY_DATA,
    SPARE,
    TSS_SELECTOR,
    UNMAPPED,
    USER32_CS,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_RSP,
    descriptor,
    gate,
    gdt_bytes,
    handler,
    outcome,
    peek,
    q,
    run,
)

from reference.image import Observation

TARGET = KERNEL_CODE + 0x40
ONES = 0xFFFF_FFFF_FFFF_FFFF
RF, AC, ID, VIF, VIP, NT, IF, TF, DF, IOPL, VM = (
    1 << 16,
    1 << 18,
    1 << 21,
    1 << 19,
    1 << 20,
    1 << 14,
    1 << 9,
    1 << 8,
    1 << 10,
    3 << 12,
    1 << 17,
)
ARITHMETIC = 0x8D5
KERNEL = {"rip": TARGET, "cs": KERNEL_CS, "rflags": 2, "rsp": KERNEL_DATA + 0x800, "ss": KERNEL_DS}
USER = {"rip": USER_CODE + 0x40, "cs": USER_CS, "rflags": 2, "rsp": USER_RSP, "ss": USER_DS}
END = {TARGET: b"\xcd\xf1", USER_CODE + 0x40: b"\xcd\xf1"}


def iret(words: dict[str, int], cpl: int = 0, size: int = 8, **parts: object) -> Observation:
    """Run IRETQ (or IRETD, IRET) on a frame."""
    code = {8: "48cf", 4: "cf", 2: "66cf"}[size]
    stack = KERNEL_RSP if cpl < 3 else USER_RSP - 0x100
    frame = b"".join((word & (1 << 8 * size) - 1).to_bytes(size, "little") for word in words.values())
    return run(code, cpl, **{"rsp": stack, **parts, "memory": {stack: frame, **END, **parts.get("memory", {})}})  # type: ignore[dict-item]


def registers(ended: Observation) -> list[int]:
    return [ended.register(name) for name in ("rip", "cs", "rflags", "rsp", "ss")]


@pytest.mark.parametrize(
    ("words", "cpl"),
    [
        pytest.param(KERNEL, 0, id="same-level"),
        pytest.param(USER, 0, id="outer-level"),
        pytest.param(USER, 3, id="same-level-at-cpl-3"),
        pytest.param({**KERNEL, "ss": 0}, 0, id="null-ss-at-cpl-0"),
    ],
)
def test_a_return_pops_all_five_words_whatever_the_level(words: dict[str, int], cpl: int) -> None:
    ended = iret(words, cpl)

    assert outcome(ended) == "ended"
    assert registers(ended) == [words["rip"] + 2, *list(words.values())[1:]]


@pytest.mark.parametrize("size", [4, 2])
def test_a_narrow_return_zero_extends_rip_and_rsp(size: int) -> None:
    low = (1 << 8 * size) - 1
    words = {**USER, "rsp": ONES & low}

    ended = iret({**words, "rip": USER_CODE + 0x40 if size == 4 else 0x1234}, size=size, limit=1)

    assert [ended.register("rip"), ended.register("rsp")] == [USER_CODE + 0x40 if size == 4 else 0x1234, low]


def test_upper_bits_of_the_selectors_are_ignored() -> None:
    assert outcome(iret({**USER, "cs": 0xFFFF_0000 | USER_CS, "ss": 0xFFFF_0000 | USER_DS})) == "ended"


SPARE_CODE = {"long": True}
CHECKS = [
    pytest.param({"cs": 0}, {}, "#GP(0x0)", id="null-cs"),
    pytest.param({"cs": 3}, {}, "#GP(0x0)", id="null-cs-with-rpl-3"),
    pytest.param({"cs": 0x100}, {}, "#GP(0x100)", id="cs-past-the-limit"),
    pytest.param({"cs": KERNEL_DS}, {}, "#GP(0x18)", id="cs-names-data"),
    pytest.param({"cs": TSS_SELECTOR}, {}, "#GP(0x40)", id="cs-names-a-tss"),
    pytest.param({"cs": SPARE}, {SPARE: descriptor(CODE, long=True, big=True)}, "#GP(0x60)", id="cs-with-l-and-d"),
    pytest.param({"cs": KERNEL_CS | 3}, {}, "#GP(0x10)", id="dpl-of-nonconforming-cs-is-not-its-rpl"),
    pytest.param({"cs": SPARE | 1}, {SPARE: descriptor(CONFORMING, 3, long=True)}, "#GP(0x60)", id="dpl-of-conforming-cs-above-its-rpl"),
    pytest.param({"cs": SPARE}, {SPARE: descriptor(CODE, long=True, present=False)}, "#NP(0x60)", id="cs-not-present"),
    pytest.param({"ss": 3}, {}, "#GP(0x0)", id="null-ss-with-another-rpl"),
    pytest.param({"ss": 0x100}, {}, "#GP(0x100)", id="ss-past-the-limit"),
    pytest.param({"ss": KERNEL_DS | 3}, {}, "#GP(0x18)", id="rpl-of-ss-is-not-that-of-cs"),
    pytest.param({"ss": KERNEL_CS}, {}, "#GP(0x10)", id="ss-names-code"),
    pytest.param({"ss": SPARE}, {SPARE: descriptor(READ_ONLY_DATA)}, "#GP(0x60)", id="ss-not-writable"),
    pytest.param({"ss": SPARE}, {SPARE: descriptor(DATA, 3)}, "#GP(0x60)", id="dpl-of-ss-is-not-the-new-cpl"),
    pytest.param({"ss": SPARE}, {SPARE: descriptor(DATA, present=False)}, "#SS(0x60)", id="ss-not-present"),
    pytest.param({"rip": NOT_CANONICAL}, {}, "#GP(0x0)", id="rip-not-canonical"),
]


@pytest.mark.parametrize(("change", "gdt", "expected"), CHECKS)
def test_checks_of_a_return_to_the_same_level(change: dict[str, int], gdt: dict[int, int], expected: str) -> None:
    ended = iret({**KERNEL, **change}, gdt=gdt, rflags=0x2 | AC)

    assert (outcome(ended), ended.deliveries[0].rip) == (expected, KERNEL_CODE)
    assert [ended.register(name) for name in ("cs", "ss", "rsp", "rflags")] == [KERNEL_CS, KERNEL_DS, KERNEL_RSP - 48, 2 | AC]


@pytest.mark.parametrize(
    ("change", "cpl", "expected"),
    [
        pytest.param({"ss": 0}, 0, "#GP(0x0)", id="null-ss"),
        pytest.param({"ss": 3}, 0, "#GP(0x0)", id="null-ss-with-rpl-3"),
        pytest.param({"ss": KERNEL_DS}, 0, "#GP(0x18)", id="kernel-ss"),
        pytest.param({"cs": KERNEL_CS}, 3, "#GP(0x10)", id="rpl-of-cs-below-the-cpl"),
        pytest.param({"cs": USER32_CS, "ss": 0}, 0, "#GP(0x0)", id="null-ss-and-compatibility-mode"),
        pytest.param({"cs": USER32_CS}, 0, "ended", id="compatibility-mode"),
        pytest.param({"rip": NOT_CANONICAL}, 0, "#GP(0x0)", id="rip-not-canonical"),
    ],
)
def test_checks_of_a_return_to_user_mode(change: dict[str, int], cpl: int, expected: str) -> None:
    assert outcome(iret({**USER, **change}, cpl)) == expected


def test_a_null_ss_may_not_lead_to_compatibility_mode_at_cpl_0() -> None:
    assert outcome(iret({**KERNEL, "cs": 0x08, "ss": 0})) == "#GP(0x0)"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"cs": 0x100, "ss": 0x108}, "#GP(0x100)", id="cs-before-ss"),
        pytest.param({"ss": 0x108, "rip": NOT_CANONICAL}, "#GP(0x108)", id="ss-before-rip"),
    ],
)
def test_the_order_of_the_checks(change: dict[str, int], expected: str) -> None:
    assert outcome(iret({**KERNEL, **change})) == expected


def test_cs_is_checked_before_rsp_and_ss_are_popped() -> None:
    # Only the first three words are in memory.
    stack = KERNEL_STACK + 0x1000 - 24
    absent = {"paging": {(1, KERNEL_STACK + 0x1000): (0, PRESENT)}, "rsp": stack, "idt": {v: gate(handler(v), ist=1) for v in (13, 14)}}

    bad, good = ({stack: q(TARGET, cs, 2)} for cs in (0x100, KERNEL_CS))
    assert outcome(run("48cf", memory=bad, **absent)) == "#GP(0x100)"
    assert outcome(run("48cf", memory=good, **absent)) == "#PF(0x0)"


def test_nt_comes_before_everything() -> None:
    assert outcome(iret(KERNEL, rflags=2 | NT)) == "#GP(0x0)"
    assert outcome(run("48cf", rsp=UNMAPPED, rflags=2 | NT, idt={13: gate(handler(13), ist=1)})) == "#GP(0x0)"


def test_a_descriptor_at_a_non_canonical_address_faults_with_the_selector() -> None:
    table = {LAST_USER_PAGE + 0xF80: gdt_bytes()}

    assert outcome(iret({**KERNEL, "cs": 0x88}, gdtr_base=LAST_USER_PAGE + 0xF80, memory=table)) == "#GP(0x88)"


WIDE = ARITHMETIC | TF | DF | NT | RF | AC | ID
EVERYTHING = ARITHMETIC | TF | DF | NT | RF | AC | ID | VIF | VIP | IF | IOPL


@pytest.mark.parametrize(
    ("size", "cpl", "iopl", "changeable"),
    [
        pytest.param(8, 0, 0, WIDE | IF | IOPL | VIF | VIP, id="cpl-0"),
        pytest.param(4, 0, 0, WIDE | IF | IOPL | VIF | VIP, id="32-bit-cpl-0"),
        pytest.param(8, 3, 0, WIDE, id="cpl-3-iopl-0"),
        pytest.param(8, 3, 0x3000, WIDE | IF, id="cpl-3-iopl-3"),
        pytest.param(4, 3, 0x2000, WIDE, id="32-bit-cpl-3-iopl-2"),
    ],
)
def test_flags_returned(size: int, cpl: int, iopl: int, changeable: int) -> None:
    # One step: nothing runs after the return that could clear RF.
    set_all = iret({**USER, "rflags": ONES & ~VM}, cpl, size, rflags=2 | iopl, limit=1)
    clear_all = iret({**USER, "rflags": 0}, cpl, size, rflags=2 | EVERYTHING & ~NT & ~TF & ~IOPL | iopl, limit=1)

    assert set_all.register("rflags") == 2 | iopl | changeable
    assert clear_all.register("rflags") == (2 | EVERYTHING & ~NT & ~TF & ~IOPL | iopl) & ~changeable


@pytest.mark.parametrize(("cpl", "iopl", "changeable"), [(0, 0, IF | IOPL), (3, 0, 0), (3, 0x3000, IF)])
def test_flags_returned_by_a_16_bit_iret(cpl: int, iopl: int, changeable: int) -> None:
    ended = iret({**USER, "rip": 0, "rflags": ONES}, cpl, 2, rflags=2 | iopl, limit=1)

    assert ended.register("rflags") == 2 | iopl | ARITHMETIC | TF | DF | NT | changeable


def test_vm_in_the_image_is_ignored() -> None:
    assert iret({**KERNEL, "rflags": 2 | VM}).register("rflags") == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"ss": 0x102}, "#GP(0x100)", id="ss-past-the-limit"),
        pytest.param({"ss": 3}, "#GP(0x0)", id="null-ss"),
        pytest.param({"cs": USER32_CS, "ss": 0x102}, "#GP(0x100)", id="ss-past-the-limit-on-the-way-to-compatibility-mode"),
    ],
)
@pytest.mark.parametrize("size", [8, 4])
def test_ss_is_popped_and_checked_at_the_same_level_whatever_vm_in_the_image_says(change: dict[str, int], expected: str, size: int) -> None:
    """SDM Vol. 3A, 7.14.3: 64-bit code pops SS:RSP unconditionally; Vol. 2A, IRET, IA-32e-MODE: VM of the image is not looked at."""
    assert outcome(iret({**USER, "rflags": 2 | VM, **change}, cpl=3, size=size)) == expected


def test_iopl_of_the_old_flags_decides_about_if() -> None:
    assert iret({**USER, "rflags": 2 | IF | IOPL}, 3).register("rflags") == 2


def test_a_return_to_an_outer_level_empties_segments_that_it_may_not_use() -> None:
    conforming = {SPARE: descriptor(CONFORMING)}

    ended = iret(USER, ds=KERNEL_DS, es=USER_DS, fs=SPARE, gs=3, gs_base=0x1234, fs_base=0x99, gdt=conforming)

    assert [ended.register(name) for name in ("ds", "es", "fs", "gs")] == [0, USER_DS, SPARE, 0]
    assert [ended.register(name) for name in ("fs_base", "gs_base")] == [0x99, 0x1234]


def test_a_return_to_the_same_level_leaves_segments_alone() -> None:
    ended = iret(KERNEL, ds=KERNEL_DS, gs=3)

    assert [ended.register(name) for name in ("ds", "gs")] == [KERNEL_DS, 3]


def test_what_becomes_of_a_null_selector_with_an_rpl_is_open_on_amd() -> None:
    expected = "not modelled: null selector with an RPL after a return to an outer level on AMD"

    assert outcome(iret(USER, gs=2, profile="amd")) == expected


def test_the_base_of_fs_or_gs_that_becomes_null_is_open() -> None:
    assert outcome(iret(USER, gs=KERNEL_DS)) == "not modelled: the base of FS or GS after a return made it null"


def test_a_return_marks_both_descriptors_accessed() -> None:
    gdt = {SPARE: descriptor(CODE & ~1, long=True), 0x68: descriptor(DATA_NOT_ACCESSED)}

    ended = iret({**KERNEL, "cs": SPARE, "ss": 0x68}, gdt=gdt)

    assert [peek(ended, GDT + SPARE), peek(ended, GDT + 0x68)] == [descriptor(CODE, long=True), descriptor(DATA)]
