"""The silicon core shows what the processor does in user mode, and leaves nothing behind from case to case."""

from __future__ import annotations

import pytest
from silicon_cases import asked, fitted, many, silicon, snippet

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.cores.registry import CORES
from fuzzer.cores.silicon import assemble
from fuzzer.cores.silicon.event import Kind
from fuzzer.cores.silicon.program import TEXT_FILE
from fuzzer.targets import layout
from reference.bits import RF, TF
from reference.image import End

DATA = layout.USER_DATA.start + 0x100
KERNEL = layout.KERNEL_DATA.start


def test_the_committed_text_is_what_the_source_assembles_to() -> None:
    if missing := assemble.missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)} (GNU binutils)")

    assert assemble.assemble() == TEXT_FILE.read_bytes()


@pytest.mark.parametrize(
    ("code", "registers", "words"),
    [
        pytest.param("", {}, "ended", id="end"),
        pytest.param("0f0b", {}, "#UD", id="ud2"),
        pytest.param("cc", {}, "#BP", id="int3"),
        pytest.param("cd21", {}, "#GP(0x10a)", id="int-n"),
        pytest.param("f4", {}, "#GP(0x0)", id="hlt"),
        pytest.param("31d2 f7f2", {}, "#DE", id="division-by-zero"),
        pytest.param("8b00", {"rax": 0x1000}, "#PF(0x4)", id="read-of-nothing"),
        pytest.param("8900", {"rax": layout.USER_READONLY.start}, "#PF(0x7)", id="write-to-a-read-only-page"),
        pytest.param("8b00", {"rax": 1 << 63}, "#GP(0x0)", id="non-canonical"),
        pytest.param("50", {"rsp": 1 << 63}, "#SS(0x0)", id="non-canonical-stack"),
        pytest.param("8b00", {"rax": DATA + 1, "rflags": 0x4_0202}, "#AC(0x0)", id="misaligned"),
        pytest.param("90", {"rflags": 0x302}, "#DB", id="single-step"),
        pytest.param("8ed0", {"rax": 0x80}, "#GP(0x80)", id="selector-past-the-limit"),
        pytest.param("8ed8", {"rax": 0x27}, "#NP(0x24)", id="segment-not-present"),
        pytest.param("8ed0", {"rax": 0x27}, "#SS(0x24)", id="stack-segment-not-present"),
        pytest.param("0f05", {}, "system call", id="syscall"),
    ],
)
def test_the_first_event(code: str, registers: dict[str, int], words: str) -> None:
    assert asked(code, **registers).words == words


def test_an_exception_shows_the_machine_that_it_met() -> None:
    # mov [rax], rbx; wrfsbase rcx; mov es, edx; ud2
    seen = asked("488918 f3480faed1 8ec2 0f0b", rax=DATA, rbx=0x1122, rcx=0x7654_3000, rdx=layout.USER_DS)

    assert [seen.register(name) for name in ("rip", "rbx", "fs_base", "es", "cs", "ss")] == [
        layout.USER_CODE.start + 10, 0x1122, 0x7654_3000, layout.USER_DS, layout.USER_CS, layout.USER_DS,
    ]  # fmt: skip
    assert seen.register("rflags") & RF
    (page,) = seen.memory.values()
    assert page[0x100:0x102] == b"\x22\x11"


def test_a_page_fault_shows_its_address() -> None:
    assert asked("8b4008", rax=0x1000).cr2 == 0x1008


def test_flags_that_are_set_beforehand_are_there() -> None:
    assert asked("cc", rflags=0x4ED7).register("rflags") == 0x4ED7
    assert asked("90", rflags=0x202 | TF).register("rip") == layout.USER_CODE.start + 1


def test_a_system_call_is_seen_and_not_made() -> None:
    seen = asked("b83c000000 0f05", rdi=3)  # exit(3)

    assert (seen.kind, seen.register("rcx"), seen.register("rdi")) == (Kind.CALL, layout.USER_CODE.start + 7, 3)
    assert asked("").words == "ended"


def test_what_never_ends_is_given_up() -> None:
    images = [fitted(snippet(code)) for code in ("0f0b", "ebfe", "cc")]

    assert [event.words for event in silicon().first(images)] == ["#UD", "no event", "#BP"]


def test_the_same_cases_in_two_orders_are_the_same() -> None:
    images = many(3, 2000)

    there = list(silicon().first(images))
    back = list(silicon().first(images[::-1]))[::-1]

    assert len({repr(sorted(image.image.registers.items())) for image in images}) > 1900
    assert [each for each in zip(there, back, strict=True) if each[0] != each[1]] == []


def test_changed_rights_of_a_page_hold_for_one_case() -> None:
    closed = snippet("c60000", rax=layout.USER_READONLY.start)

    assert [event.words for event in silicon().first([fitted(closed)] * 2)] == ["#PF(0x7)"] * 2


def test_a_whole_run_cannot_be_asked() -> None:
    (seen,) = silicon().run([build(snippet("0f0b"))])

    assert (seen.end, seen.detail) == (End.UNSUPPORTED, "user mode up to its first event: #UD")
    assert seen.register("rip") == layout.USER_CODE.start
    assert list(silicon().trace(build(snippet("0f0b")))) == []


def test_a_case_that_begins_in_the_kernel_cannot_be_asked() -> None:
    (seen,) = silicon().run([build(Case("snippets", "kernel", "amd"))])

    assert (seen.end, seen.detail) == (End.UNSUPPORTED, "it does not begin in user mode")


def test_the_core_is_listed_with_the_processors_version() -> None:
    assert CORES["silicon"].available() == (silicon().version, "")
