"""A sweep of one path: what a wrong core, wrong entry code and a second event leave in its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from fuzzer_wrong_cores import Moment, WrongCore

from fuzzer.build import build, builder
from fuzzer.cores.core import Core
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.sweep.events import event_at, is_kind
from fuzzer.sweep.outcomes import Outcome, letters, worst
from fuzzer.sweep.result import PathResult
from fuzzer.sweep.sweep import sweep_path
from fuzzer.targets import layout
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.tables import FRAMES
from fuzzer.targets.target import Target, patch
from reference.image import End, EventKind, Image, Observation

LINUX4 = TARGETS["linux4"]
SWAPGS, NOPS = b"\x0f\x01\xf8", b"\x90\x90\x90"


def swept(
    scenario: str, *kinds: str, depth: int = 1, core: Core | None = None, target: Target = LINUX4, second: tuple[str, ...] = ("nmi",)
) -> PathResult:
    return sweep_path(target, build if target is LINUX4 else builder(target), scenario, "intel", kinds, depth, core, second)


def test_every_boundary_has_an_outcome_for_every_kind(core: UnicornCore) -> None:
    result = swept("int3-from-user", "interrupt", "nmi", "mce", core=core)

    assert set(result.cells) == {"interrupt", "nmi", "mce"}
    assert {len(row) for row in result.cells.values()} == {result.boundaries}
    assert result.runs == 3 * result.boundaries + 1, "the path itself is run as well"


def test_a_clean_target_on_an_engine_that_is_right_there_shows_nothing(core: UnicornCore) -> None:
    result = swept("int3-from-user", "interrupt", "nmi", core=core)

    assert (result.contract_violations, result.divergent, result.breaches, result.divergences) == (0, 0, (), ())
    assert 0 < result.merged < result.runs


def test_a_core_that_is_wrong_after_the_second_delivery_diverges_where_there_is_one(core: UnicornCore) -> None:
    def damage(moment: Moment) -> None:
        if moment.deliveries > 1:
            moment.registers["gs_base"] ^= 0x1000

    result = swept("int3-from-user", "nmi", core=WrongCore(core, damage))

    (found,) = result.divergences
    assert set(result.cells["nmi"]) == {Outcome.DIVERGENT}
    assert (result.divergent, found.hits) == (result.boundaries, result.boundaries), "the path itself has one delivery"
    assert [difference.field for difference in found.comparison.differences] == ["gs_base"]


def without_swapgs(symbol: str) -> Target:
    offset = LINUX4.symbols[symbol] - layout.KERNEL_TEXT.start
    page, place = divmod(offset, layout.PAGE)
    assert LINUX4.pages[FRAMES["kernel_text"] + page][place : place + 3] == SWAPGS
    return replace(LINUX4, edits=(patch(layout.KERNEL_TEXT, offset, NOPS),))


def test_entry_code_without_its_swapgs_breaks_the_contract() -> None:
    result = swept("system-call-from-user", "nmi", target=without_swapgs("system_call"))

    assert Outcome.BROKEN in result.cells["nmi"]
    assert result.contract_violations > 0
    assert all(breach.hits > 0 and breach.violation.text for breach in result.breaches)


def test_depth_two_adds_a_row_with_the_most_remarkable_outcome_of_a_second_event() -> None:
    one = swept("nmi-from-user", "nmi")
    two = swept("nmi-from-user", "nmi", depth=2)

    assert two.cells["nmi"] == one.cells["nmi"]
    assert two.runs > 5 * one.runs
    opened = [first in (Outcome.DELIVERED, Outcome.MERGED) for first in two.cells["nmi"]]
    assert [second is not Outcome.UNTRIED for second in two.cells["nmi+nmi"]] == opened


def test_depth_two_takes_the_second_events_that_are_asked_for() -> None:
    result = swept("interrupt-from-user", "nmi", depth=2, second=("interrupt", "mce"))

    assert set(result.cells) == {"nmi", "nmi+interrupt", "nmi+mce"}


def test_what_is_not_modelled_is_counted_by_its_reason(core: UnicornCore) -> None:
    result = swept("interrupt-from-kernel", "nmi", core=core)

    assert result.not_modelled == Counter({"an NMI pending right after STI": 1})
    assert result.cells["nmi"].count(Outcome.NOT_MODELLED) == 1


class Refuses(UnicornCore):
    """An engine that cannot run anything."""

    name = "refuses"

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        return (Observation(End.UNSUPPORTED, detail="no way") for _ in images)


def test_what_the_core_cannot_do_is_not_compared() -> None:
    result = swept("nmi-from-user", "mce", core=Refuses())

    assert set(result.cells["mce"]) == {Outcome.NOT_MODELLED}
    assert (result.divergent, result.not_modelled) == (0, Counter({"refuses: no way": result.runs}))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("interrupt", (EventKind.INTERRUPT, 0x21)),
        ("interrupt:0x40", (EventKind.INTERRUPT, 0x40)),
        ("nmi", (EventKind.NMI, 2)),
        ("mce", (EventKind.MACHINE_CHECK, 18)),
    ],
)
def test_events_by_name(kind: str, expected: tuple[EventKind, int]) -> None:
    event = event_at(kind, 7)

    assert is_kind(kind)
    assert (event.boundary, (event.kind, event.vector)) == (7, expected)


@pytest.mark.parametrize("kind", ["smi", "interrupt:", "interrupt:0x1f", "interrupt:0xf1", "interrupt:40", "nmi:0x2"])
def test_what_is_no_event(kind: str) -> None:
    assert not is_kind(kind)


def test_a_broken_contract_is_more_remarkable_than_a_divergence_and_that_more_than_the_rest() -> None:
    assert worst([Outcome.DIVERGENT, Outcome.BROKEN, Outcome.MERGED]) is Outcome.BROKEN
    assert worst([Outcome.MERGED, Outcome.DIVERGENT, Outcome.NOT_MODELLED]) is Outcome.DIVERGENT
    assert worst([]) is Outcome.UNTRIED


def test_letters_tell_outcomes_apart() -> None:
    assert len(set(letters(Outcome))) == len(Outcome)
