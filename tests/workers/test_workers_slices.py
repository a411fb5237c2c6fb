"""A slice gives the same result wherever it runs, and a campaign the same buckets however many processes share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fuzzer.cores.unicorn.core import UnicornCore
from reference.image import End, Image, Observation
from workers.child import NO_CASE
from workers.local import Settings, run_campaign
from workers.slices import EXAMPLES, Slice, plan, run_slice

PROFILES = ("intel", "amd")


@pytest.fixture(scope="module")
def core() -> UnicornCore:
    return UnicornCore()


def a_slice(**changes: object) -> Slice:
    return Slice(**{"number": 0, "target": "snippets", "profiles": PROFILES, "seed": 5, "first": 0, "count": 60, **changes})  # type: ignore[arg-type]


def ignore(number: int, place: int) -> None:
    pass


def test_a_slice_run_twice_says_the_same(core: UnicornCore) -> None:
    first, second = run_slice(a_slice(), [core], ignore), run_slice(a_slice(), [core], ignore)

    assert (first.hits, first.findings, first.not_modelled) == (second.hits, second.findings, second.not_modelled)
    assert first.hits, "sixty generated snippets part somewhere, or this test says nothing"


def test_two_halves_of_a_slice_have_the_hits_of_the_whole(core: UnicornCore) -> None:
    whole = run_slice(a_slice(), [core], ignore)
    halves = [run_slice(a_slice(first=first, count=30), [core], ignore) for first in (0, 30)]

    assert whole.hits == halves[0].hits + halves[1].hits


def test_a_slice_keeps_the_smallest_cases_of_a_signature(core: UnicornCore) -> None:
    result = run_slice(a_slice(count=400), [core], ignore)

    for signature, hits in result.hits.items():
        kept = [finding for finding in result.findings if finding.bucket.signature == signature]
        assert len(kept) == min(hits, EXAMPLES)


def test_the_number_of_a_case_is_told_before_it_runs(core: UnicornCore) -> None:
    told: list[int] = []

    run_slice(a_slice(first=7, count=3), [core], lambda number, place: told.append(number))

    assert told[:4] == [NO_CASE, 7, 8, 9]
    assert set(told[4:]) <= {7, 8, 9}, "those that diverge run again, to be explained"


@pytest.mark.parametrize("end", [End.CORE_CRASHED, End.CORE_HUNG])
def test_a_lost_case_is_a_finding_and_is_not_run_again(core: UnicornCore, end: End) -> None:
    class Careful(UnicornCore):
        ran = 0

        def run(self, images: Sequence[Image]) -> Iterator[Observation]:
            self.ran += len(images)
            return super().run(images)

    careful = Careful()

    result = run_slice(a_slice(count=2).without(0, 0, end), [careful], ignore)

    assert result.crashes == 1
    assert [finding.bucket.kind for finding in result.findings if finding.observed["end"] == end.value] == [
        {End.CORE_CRASHED: "crash", End.CORE_HUNG: "hang"}[end]
    ]
    assert careful.ran <= 1


def test_targets_take_turns_and_count_their_own_cases() -> None:
    slices = [plan(("linux4", "snippets"), PROFILES, 1, 100, number) for number in range(4)]

    assert [(each.target, each.first) for each in slices] == [("linux4", 0), ("snippets", 0), ("linux4", 100), ("snippets", 100)]


def buckets(path: Path, jobs: int, cases: int = 700) -> dict[str, int]:
    settings = Settings(("linux4", "snippets"), ("unicorn",), 11, cases, None, jobs, PROFILES, str(path))
    return {bucket.id: bucket.hits for bucket in run_campaign(settings).buckets}


def test_two_processes_find_the_buckets_of_one_and_so_does_a_second_run(tmp_path: Path) -> None:
    one = buckets(tmp_path / "one.db", jobs=1)

    assert one
    assert buckets(tmp_path / "two.db", jobs=2) == one
    assert buckets(tmp_path / "again.db", jobs=1) == one


def test_a_number_of_cases_is_exact(tmp_path: Path) -> None:
    settings = Settings(("snippets",), ("unicorn",), 11, 333, None, 2, PROFILES, str(tmp_path / "exact.db"))

    assert run_campaign(settings).cases == 333


def test_seconds_end_a_campaign(tmp_path: Path) -> None:
    settings = Settings(("snippets",), ("unicorn",), 11, None, 0.5, 1, PROFILES, str(tmp_path / "short.db"))
    told: list[int] = []

    summary = run_campaign(settings, lambda progress: told.append(progress.cases))

    assert summary.cases == told[-1] > 0
