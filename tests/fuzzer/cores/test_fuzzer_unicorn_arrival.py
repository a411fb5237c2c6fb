"""Events reach the Unicorn core at exactly their boundaries: the specification says which, and where the handler returns to."""

from __future__ import annotations

from typing import Any

import pytest
from fuzzer_builders import both, entered, interrupt, linux4, nmi, snippet

from fuzzer.case import Case, encode
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.generate.linux4 import path_length
from fuzzer.targets import layout
from fuzzer.targets.registry import TARGETS
from reference.image import End, Event

USER = layout.USER_DATA.start + 0x100
KERNEL = layout.KERNEL_DATA.start + 0x100
DATA = {"user": USER, "kernel": KERNEL}
IF, TF = 0x202, 0x302
SS = layout.KERNEL_DS

SNIPPETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "plain": ("90 90 90", 4, {}),
    "cli-sti": ("fa 90 90 fb 90 90", 8, {}),
    "sti-shadow": ("90 fb 90 90", 6, {"rflags": 2}),
    "sti-with-interrupts-on": ("fb 90 90", 5, {}),
    "sti-then-cli": ("fb fa 90 fb 90", 7, {"rflags": 2}),
    "mov-ss-shadow": ("90 8ed0 90 90", 6, {"rax": SS}),
    "mov-ss-then-int-n": ("8ed0 cd21 90", 5, {"rax": SS}),
    "mov-ss-then-swapgs": ("8ed0 0f01f8 0f01f8 90", 6, {"rax": SS}),
    "lss": ("90 0fb200 90 90", 6, {"rax": KERNEL}),
    "pushf-popf": ("9c 9d 90", 5, {}),
    "popf-clears-if": ("6a02 9d 90 fb 90", 8, {}),
    "rep-movsb": ("90 f3a4 90", 11, {"rcx": 5, "rsi": KERNEL, "rdi": KERNEL + 64}),
    "rep-movsq-backwards": ("fd f348a5 90", 9, {"rcx": 4, "rsi": KERNEL + 64, "rdi": KERNEL + 0x80}),
    "rep-stosb": ("f3aa 90", 9, {"rcx": 5, "rdi": KERNEL}),
    "rep-with-count-0": ("90 f3a4 90", 6, {"rcx": 0, "rsi": KERNEL, "rdi": KERNEL + 64}),
    "rep-with-count-1": ("90 f3a4 90", 6, {"rcx": 1, "rsi": KERNEL, "rdi": KERNEL + 64}),
    "rep-twice": ("f3a4 f3a4 90", 8, {"rcx": 3, "rsi": KERNEL, "rdi": KERNEL + 64}),
    "rep-that-faults": ("f3a4 90", 6, {"rcx": 4, "rsi": KERNEL, "rdi": layout.KERNEL_DATA.end - 2}),
    "swapgs": ("0f01f8 90 0f01f8", 5, {}),
    "jump": ("eb00 90 eb00 90", 6, {}),
    "loop-on-rcx": ("48ffc9 75fb 90", 11, {"rcx": 4}),
    "halt": ("90 f4 90", 5, {}),
    "halt-with-interrupts-off": ("fa f4 90", 5, {}),
    "sti-halt": ("fb f4 90", 5, {"rflags": 2}),
    "page-fault": ("90 488b00 90", 5, {"rax": 0}),
    "divide-error": ("90 f7f1 90", 5, {"rcx": 0}),
    "undefined": ("90 0f0b", 4, {}),
    "single-step": ("90 90", 4, {"rflags": TF}),
    "single-step-with-interrupts-off": ("90 fb 90", 4, {"rflags": 0x102}),
    "user": ("90 9c 58 90", 6, {"scenario": "user"}),
    "user-rep": ("90 f3a4 90", 8, {"scenario": "user", "rcx": 3, "rsi": USER, "rdi": USER + 64}),
    "user-int3": ("90 cc 90", 4, {"scenario": "user"}),
    "user-syscall": ("90 0f05 90", 4, {"scenario": "user"}),
    "user-sysenter": ("90 0f34 90", 4, {"scenario": "user"}),
    "user-fetch-fault": ("90 ffe0", 4, {"scenario": "user", "rax": 0x1000}),
    "user-edge": ("90 90", 4, {"scenario": "user-edge", "rip": layout.USER_EDGE.start}),
    "user-gs-in-kernel": ("90 0f01f8 90", 5, {"scenario": "kernel-user-gs"}),
    "near-branch-to-an-unmapped-page": ("48c7c000100000 ffe0", 4, {}),
}


def arrivals(boundary: int) -> dict[str, tuple[Event, ...]]:
    return {
        "interrupt": (interrupt(boundary),),
        "nmi": (nmi(boundary),),
        "nmi-and-interrupt": (nmi(boundary), interrupt(boundary, 0x2F)),
        "two-interrupts": (interrupt(boundary, 0x21), interrupt(boundary, 0x2E)),
        "nmi-behind-nmi": (nmi(boundary), nmi(boundary + 1)),
        "interrupt-behind-nmi": (nmi(boundary), interrupt(boundary + 1)),
    }


def mismatches(core: UnicornCore, cases: list[Case]) -> list[str]:
    """Cases whose handlers were entered at another boundary, or to return to another place, than the specification says."""
    found = []
    for case in cases:
        spec, seen = both(core, case)
        if spec.end is not End.NOT_MODELLED and seen.end is not End.UNSUPPORTED and entered(spec) != entered(seen):
            found.append(f"{encode(case).hex()}: {entered(spec)} {entered(seen)}")
    return found


OTHERWISE = {
    "sti-with-interrupts-on": "the engine begins a shadow although IF was set before STI",
}
"""Where the core is known to part from the specification, and whose doing it is."""


def swept() -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.xfail(reason=OTHERWISE[name], strict=True) if name in OTHERWISE else ()) for name in SNIPPETS
    ]


@pytest.mark.parametrize("profile", ["intel", "amd"])
@pytest.mark.parametrize("name", swept())
def test_events_arrive_at_every_boundary_of_a_snippet(core: UnicornCore, name: str, profile: str) -> None:
    code, boundaries, registers = SNIPPETS[name]
    cases = [
        snippet(code, profile=profile, events=events, **registers)
        for boundary in range(boundaries)
        for events in arrivals(boundary).values()
    ]

    assert mismatches(core, cases) == []


@pytest.mark.parametrize("profile", ["intel", "amd"])
@pytest.mark.parametrize("code", ["fb f3a4 90", "8ed0 f3aa 90"], ids=["sti", "mov-ss"])
def test_a_repeated_instruction_in_a_shadow_is_open_or_not_supported(core: UnicornCore, code: str, profile: str) -> None:
    registers = {"rflags": 2, "rax": SS, "rcx": 3, "rsi": KERNEL, "rdi": KERNEL + 64}
    cases = [snippet(code, profile=profile, events=events, **registers) for boundary in range(7) for events in arrivals(boundary).values()]

    assert mismatches(core, cases) == []


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_boundaries_that_are_not_modelled_are_few(core: UnicornCore, name: str) -> None:
    """So that the sweep above says something: the manual leaves only NMIs right behind STI open."""
    code, boundaries, registers = SNIPPETS[name]
    for kind in ("interrupt", "nmi"):
        cases = [snippet(code, events=arrivals(boundary)[kind], **registers) for boundary in range(boundaries)]

        ends = [both(core, case)[0].end for case in cases]

        assert ends.count(End.NOT_MODELLED) <= (code.count("fb") if kind == "nmi" else 0)


QUICK = ("interrupt-from-user", "nmi-from-kernel", "divide-error-from-kernel", "int3-from-user", "debug-in-syscall-gap")


def arrivals_along(scenario: str, kinds: tuple[str, ...], step: int = 1) -> list[Case]:
    length = path_length(scenario, "intel")
    return [linux4(scenario, *arrivals(boundary)[kind]) for boundary in range(0, length + 2, step) for kind in kinds]


@pytest.mark.parametrize("scenario", QUICK)
def test_events_arrive_at_every_boundary_of_an_entry_path(core: UnicornCore, scenario: str) -> None:
    assert mismatches(core, arrivals_along(scenario, ("interrupt", "nmi"))) == []


ENGINE_FAULTS_OTHERWISE = (
    "stack-segment-",  # raises #GP
    "alignment-check-",  # does not raise it
    "icebp-",  # raises #UD
    "bad-iret-stack",  # raises #NP
    "system-call-at-the-edge",  # faults behind the return, not before
    "breakpoint-register-",  # keeps RF, which hides the breakpoint
)
"""Scenarios whose exception this engine does not raise as the manual says."""
SWEPT = [each.name for each in TARGETS["linux4"].scenarios if not each.name.startswith(ENGINE_FAULTS_OTHERWISE)]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SWEPT)
def test_all_events_arrive_at_every_fifth_boundary_of_every_entry_path(core: UnicornCore, scenario: str) -> None:
    assert mismatches(core, arrivals_along(scenario, tuple(arrivals(0)), step=5)) == []


@pytest.mark.parametrize("boundary", range(1, 6))
def test_an_interrupt_between_two_iterations_saves_the_address_of_the_instruction(core: UnicornCore, boundary: int) -> None:
    _, seen = both(core, snippet("90 f3a4 90", events=[interrupt(boundary)], rcx=5, rsi=KERNEL, rdi=KERNEL + 64))

    assert entered(seen) == [(boundary, 0x21, None, layout.KERNEL_CODE.start + 1, 0)]


def test_an_interrupt_in_the_shadow_of_sti_waits_for_one_instruction(core: UnicornCore) -> None:
    _, seen = both(core, snippet("fb 90 90", events=[interrupt(0)], rflags=2))

    assert entered(seen) == [(2, 0x21, None, layout.KERNEL_CODE.start + 2, 0)]


def test_an_nmi_in_the_shadow_of_mov_ss_waits_for_one_instruction(core: UnicornCore) -> None:
    _, seen = both(core, snippet("8ed0 90 90", events=[nmi(1)], rax=SS))

    assert entered(seen) == [(2, 2, None, layout.KERNEL_CODE.start + 3, 0)]
