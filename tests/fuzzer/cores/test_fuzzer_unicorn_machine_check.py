"""Machine checks at every boundary: not masked by anything, once (SDM Vol. 3A, Table 7-2 and 7.15; Vol. 3B, 16.3.1.2)."""

from __future__ import annotations

from typing import Any

import pytest
from fuzzer_builders import entered, interrupt, linux4, nmi
from fuzzer_machines import COMPATIBILITY, machine, machine_check, observe

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.generate.linux4 import path_length
from fuzzer.targets import layout, tables
from fuzzer.targets.target import patch
from reference.image import End, Event, Image
from reference.run import run

CODE = layout.KERNEL_CODE.start
KERNEL = layout.KERNEL_DATA.start + 0x100
USER = layout.USER_DATA.start + 0x100
MCE = 1 << 6
RETURNS = (
    patch(layout.IDT, 18 * 16, tables.gate(layout.KERNEL_TEXT.start + 0x120, ist=layout.IST_MACHINE_CHECK)),
    patch(layout.KERNEL_TEXT, 0x120, bytes.fromhex("90 48cf")),
)
"""A handler of vector 18 that returns to what it interrupted."""

SNIPPETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "plain": ("90 90 90", 5, {}),
    "interrupts-off": ("fa 90 fb 90", 6, {}),
    "sti-shadow": ("90 fb 90 90", 6, {"rflags": 2}),
    "mov-ss-shadow": ("90 8ed0 90 90", 6, {"rax": layout.KERNEL_DS}),
    "rep-movsb": ("90 f3a4 90", 9, {"rcx": 4, "rsi": KERNEL, "rdi": KERNEL + 64}),
    "swapgs": ("0f01f8 90 0f01f8", 5, {}),
    "halt": ("90 f4 90", 5, {}),
    "halt-for-ever": ("fa f4 90", 5, {}),
    "page-fault": ("90 488b00 90", 5, {"rax": 0}),
    "user": ("90 9c 58 90", 6, {"scenario": "user"}),
    "user-rep": ("90 f3a4 90", 8, {"scenario": "user", "rcx": 3, "rsi": USER, "rdi": USER + 64}),
    "user-syscall": ("90 0f05 90", 4, {"scenario": "user"}),
    "user-int3": ("90 cc 90", 4, {"scenario": "user"}),
    "before-swapgs": ("90 0f01f8 90", 5, {"scenario": "kernel-user-gs"}),
}


def arrivals(boundary: int) -> dict[str, list[Event]]:
    return {
        "alone": [machine_check(boundary)],
        "with-nmi-and-interrupt": [interrupt(boundary), nmi(boundary), machine_check(boundary)],
        "in-nmi": [nmi(boundary), machine_check(boundary + 1)],
        "nmi-in-machine-check": [machine_check(boundary), nmi(boundary + 1)],
        "interrupt-in-machine-check": [machine_check(boundary), interrupt(boundary + 1)],
        "twice": [machine_check(boundary), machine_check(boundary + 1)],
    }


def mismatches(core: UnicornCore, images: list[Image]) -> list[str]:
    """Where the specification and the core enter other handlers, or end otherwise."""
    found = []
    for image in images:
        spec, seen = run(image), observe(core, image)
        if spec.end is not End.NOT_MODELLED and (spec.end, entered(spec)) != (seen.end, entered(seen)):
            found.append(f"{image.events}: {spec.end} {entered(spec)} {seen.end} {entered(seen)}")
    return found


@pytest.mark.parametrize("profile", ["intel", "amd"])
@pytest.mark.parametrize("name", SNIPPETS)
def test_a_machine_check_arrives_at_every_boundary(core: UnicornCore, name: str, profile: str) -> None:
    code, boundaries, given = SNIPPETS[name]
    scenario, registers = given.get("scenario", "kernel"), {key: value for key, value in given.items() if key != "scenario"}

    images = [
        machine(code, scenario, profile, events, RETURNS, **registers)
        for boundary in range(boundaries)
        for events in arrivals(boundary).values()
    ]

    assert mismatches(core, images) == []


@pytest.mark.parametrize("boundary", range(4))
def test_a_machine_check_interrupts_32_bit_code(core: UnicornCore, boundary: int) -> None:
    image = machine("40 40 40", events=[machine_check(boundary)], memory=RETURNS, **COMPATIBILITY)

    seen = observe(core, image)

    assert entered(seen) == [(boundary, 18, None, layout.USER_CODE.start + boundary, 3)]
    assert (seen.end, seen.register("rax"), seen.register("cs")) == (End.ENDED, 3, layout.USER32_CS)


@pytest.mark.parametrize("scenario", ["user", "kernel"])
def test_a_machine_check_that_is_not_enabled_shuts_down(core: UnicornCore, scenario: str) -> None:
    enabled = machine("90 90", scenario)
    cr4 = enabled.registers["cr4"]

    ends = [observe(core, machine("90 90", scenario, events=[machine_check(1)], cr4=value)).end for value in (cr4 | MCE, cr4 & ~MCE)]

    assert ends == [End.ENDED, End.SHUTDOWN]


@pytest.mark.parametrize("second", range(1, 5))
def test_a_second_machine_check_shuts_down(core: UnicornCore, second: int) -> None:
    """MCG_STATUS.MCIP is still 1: in the handler, and behind its IRET as well, since nothing has cleared it."""
    image = machine("90 90 90", "kernel", events=[machine_check(1), machine_check(second + 1)], memory=RETURNS)

    seen = observe(core, image)

    assert (seen.end, entered(seen)) == (End.SHUTDOWN, [(1, 18, None, CODE + 1, 0)])


def test_the_latch_of_one_run_is_not_in_the_next(core: UnicornCore) -> None:
    image = machine("90", "kernel", events=[machine_check(0)], memory=RETURNS)

    assert [observe(core, image).end for _ in range(2)] == [End.ENDED, End.ENDED]


def test_a_machine_check_in_the_shadow_of_mov_ss_does_not_wait(core: UnicornCore) -> None:
    image = machine("8ed0 90 90", "kernel", events=[machine_check(1)], memory=RETURNS, rax=layout.KERNEL_DS)

    assert entered(observe(core, image)) == [(1, 18, None, CODE + 2, 0)]


def test_a_machine_check_goes_before_an_nmi_and_an_interrupt(core: UnicornCore) -> None:
    """Then the NMI is taken before the first instruction of the machine-check handler, and the interrupt behind both."""
    image = machine("90 90", "kernel", events=[interrupt(1), nmi(1), machine_check(1)], memory=RETURNS)

    seen = observe(core, image)

    assert [entry[:2] for entry in entered(seen)] == [(1, 18), (1, 2), (4, 0x21)]
    assert seen.end is End.ENDED


QUICK = ("interrupt-from-user", "nmi-from-kernel", "divide-error-from-kernel", "int3-from-user")


@pytest.mark.parametrize("scenario", QUICK)
def test_machine_checks_arrive_at_every_boundary_of_an_entry_path(core: UnicornCore, scenario: str) -> None:
    length = path_length(scenario, "intel")
    cases: list[Case] = [linux4(scenario, machine_check(boundary)) for boundary in range(0, length + 2, 2)]

    assert mismatches(core, [build(case) for case in cases]) == []


def test_int_18_is_no_machine_check(core: UnicornCore) -> None:
    """A software interrupt of vector 18 leaves MCIP alone."""
    image = machine("cd12 90 90", "kernel", events=[machine_check(2)], memory=RETURNS)

    assert [entry[:2] for entry in entered(observe(core, image))] == [(0, 18), (2, 18)]
