"""The Unicorn core leaves nothing behind: what a case shows does not depend on the cases before it."""

from __future__ import annotations

from random import Random

import pytest
from fuzzer_builders import both, damaged_tables, entered, generated, interrupt, linux4, nmi, random_bytes, snippet

from fuzzer.build import build
from fuzzer.case import Case, decode, encode
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.targets import layout, tables
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.target import patch
from reference.image import End, Observation


def observe(core: UnicornCore, cases: list[Case]) -> dict[str, Observation]:
    images = [build(case) for case in cases]
    return {case.digest: seen for case, seen in zip(cases, core.run(images), strict=True)}


def differing(cases: list[Case], one: dict[str, Observation], other: dict[str, Observation]) -> list[str]:
    return [encode(case).hex() for case in cases if one[case.digest] != other[case.digest]]


def reordered(cases: list[Case], order: str) -> list[Case]:
    """The same cases backwards, shuffled, or one target and profile after the other."""
    if order == "backwards":
        return cases[::-1]
    if order == "shuffled":
        return Random(1).sample(cases, len(cases))
    return sorted(cases, key=lambda case: (case.target, case.profile, case.digest))


ORDERS = ("backwards", "shuffled", "grouped")


@pytest.mark.parametrize("order", ORDERS)
def test_three_hundred_cases_show_the_same_in_any_order(core: UnicornCore, order: str) -> None:
    cases = generated(21, 300)
    forwards = observe(core, cases)

    again = observe(core, reordered(cases, order))

    assert differing(cases, forwards, again) == []


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_thousands_of_cases_show_the_same_in_any_order(order: str) -> None:
    cases = generated(22, 3_000)
    forwards = observe(UnicornCore(), cases)

    again = observe(UnicornCore(), reordered(cases, order))

    assert differing(cases, forwards, again) == []


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_new_core_shows_the_same_as_a_used_one(core: UnicornCore, target: str) -> None:
    cases = generated(23, 60, [target])

    assert differing(cases, observe(core, cases), observe(UnicornCore(), cases)) == []


def test_one_image_twice_in_a_batch_shows_the_same(core: UnicornCore) -> None:
    for case in generated(24, 40):
        image = build(case)

        first, second = core.run([image, image])

        assert first == second, encode(case).hex()


def test_a_trace_that_is_given_up_leaves_nothing_behind(core: UnicornCore) -> None:
    cases = generated(25, 60)
    before = observe(core, cases)
    after = {}

    for number, case in enumerate(cases):
        trace = core.trace(build(cases[number - 1]))
        for _ in range(number % 7 + 1):
            next(trace, None)
        after |= observe(core, [case])

    assert differing(cases, before, after) == []


def test_breakpoints_of_one_case_are_not_met_in_the_next(core: UnicornCore) -> None:
    plain = snippet("909090")
    watched = snippet("909090", dr0=layout.KERNEL_CODE.start + 1, dr7=0x401)
    alone = observe(core, [plain])

    observe(core, [watched])

    assert observe(core, [plain]) == alone


def test_breakpoints_that_a_case_sets_itself_are_not_met_in_the_next(core: UnicornCore) -> None:
    plain = snippet("909090909090909090")
    setting = snippet("0f23c0 0f23fb 90", rax=layout.KERNEL_CODE.start + 1, rbx=0x401)  # mov dr0, rax; mov dr7, rbx
    alone = observe(core, [plain])

    observe(core, [setting])

    assert observe(core, [plain]) == alone


def test_code_that_a_case_changes_does_not_run_in_the_next(core: UnicornCore) -> None:
    one, other = snippet("b801000000"), snippet("b802000000")  # mov eax, 1 / 2

    seen = [next(iter(core.run([build(case)]))).register("rax") for case in (one, other, one, one, other)]

    assert seen == [1, 2, 1, 1, 2]


def test_a_code_segment_with_a_base_spoils_no_later_case(core: UnicornCore) -> None:
    """The engine adds the base of CS even to 64-bit addresses, and the code that clears breakpoints then runs elsewhere."""
    cases = generated(26, 20)
    alone = observe(core, cases)
    # iretq through a 64-bit code segment with a base, while a breakpoint is armed
    based = patch(layout.GDT, 0xB0, bytes.fromhex("ffff2a0000 9baf00".replace(" ", "")))
    frame = b"".join(word.to_bytes(8, "little") for word in (layout.KERNEL_CODE.start, 0xB0, 2, layout.THREAD_STACK.end, 0x18))
    stack = layout.THREAD_STACK.end - 0x100
    returning = snippet(
        "48cf", memory=(based, patch(layout.THREAD_STACK, stack - layout.THREAD_STACK.start, frame)), rsp=stack, dr0=0x40_0000, dr7=0x401
    )

    observe(core, [returning])

    assert differing(cases, alone, observe(core, cases)) == []


def test_the_core_takes_any_case(core: UnicornCore) -> None:
    rng = Random(6)
    for _ in range(500):
        case = decode(random_bytes(rng))

        (observation,) = core.run([build(case)])

        assert observation.end is not End.CORE_CRASHED, encode(case).hex()


def test_the_core_takes_cases_with_damaged_tables_and_is_as_before(core: UnicornCore) -> None:
    cases = generated(27, 20)
    alone = observe(core, cases)
    rng = Random(7)

    for _ in range(400):
        list(core.run([build(damaged_tables(rng))]))

    assert differing(cases, alone, observe(core, cases)) == []


def test_cases_with_damaged_tables_show_the_same_in_any_order(core: UnicornCore) -> None:
    """What walks have found is kept from case to case, but only under the same tables."""
    rng = Random(8)
    cases = [case for usual in generated(28, 100) for case in (damaged_tables(rng), usual)]
    forwards = observe(core, cases)

    assert differing(cases, forwards, observe(core, cases[::-1])) == []
    assert differing(cases, forwards, observe(UnicornCore(), reordered(cases, "shuffled"))) == []


def test_a_descriptor_table_outside_memory_is_unsupported(core: UnicornCore) -> None:
    entry = (tables.leaf_entry(layout.GDT.start) & 0xFFF | 0xF_FFFF << 12).to_bytes(8, "little")
    unmapped = snippet("90", memory=[patch(tables.PAGE_TABLES, tables.entry_offset(layout.GDT.start), entry)])

    spec, seen = both(core, unmapped)

    assert spec.end is End.NOT_MODELLED
    assert seen.end is End.UNSUPPORTED


def test_an_infinite_loop_did_not_end(core: UnicornCore) -> None:
    spec, seen = both(core, snippet("ebfe", events=[interrupt(1_000)]))

    assert (spec.end, seen.end) == (End.DID_NOT_END, End.DID_NOT_END)


def test_observations_come_in_the_order_of_the_images(core: UnicornCore) -> None:
    cases = [snippet(f"b8{number:02x}000000") for number in range(20)]

    assert [seen.register("rax") for seen in core.run([build(case) for case in cases])] == list(range(20))


def test_an_empty_batch_gives_nothing(core: UnicornCore) -> None:
    assert list(core.run([])) == []


def test_a_trace_ends_as_the_run_does(core: UnicornCore) -> None:
    for case in (linux4("int3-from-user"), linux4("nmi-from-kernel", interrupt(3)), snippet("f390")):
        image = build(case)
        (seen,) = core.run([image])

        last = list(core.trace(image))[-1]

        assert (last.end, last.registers, last.retired, dict(last.memory)) == (seen.end, seen.registers, seen.retired, dict(seen.memory))


def test_code_that_changes_itself_is_counted_as_it_ran(core: UnicornCore) -> None:
    """The engine begins an instruction anew that changed the code around it: that is no boundary."""
    # again: mov al, 0; add bl, al; inc byte [again + 1]; cmp al, 2; jb again; iretq
    handler = patch(layout.KERNEL_TEXT, 2 * 16, bytes.fromhex("b000 00c3 fe05f7ffffff 3c02 72f2 48cf"))
    case = snippet("90 90", events=[nmi(1), nmi(2)], memory=[handler], cr0=0x8000_0033)

    spec, seen = both(core, case)

    assert entered(seen) == entered(spec)
    assert (seen.end, seen.register("rbx"), seen.retired) == (End.ENDED, 0 + 1 + 2 + 3, spec.retired)


def test_code_that_changes_itself_runs_as_it_stands_while_an_nmi_is_awaited(core: UnicornCore) -> None:
    """The adapter looks ahead for the IRET that would let it in, and undoes that: the code as it was then must not run."""
    # again: mov al, 0; add bl, al; cmp al, 2; jae done; inc byte [again + 1]; jmp again; done: iretq
    handler = patch(layout.KERNEL_TEXT, 2 * 16, bytes.fromhex("b000 00c3 3c02 7308 fe05f3ffffff ebf0 48cf"))
    case = snippet("90 90", events=[nmi(1), nmi(50)], memory=[handler], cr0=0x8000_0033)

    _, seen = both(core, case)

    assert (seen.end, seen.register("rbx")) == (End.ENDED, 0 + 1 + 2)
