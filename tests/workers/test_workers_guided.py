"""A guided slice gives the same result each time, stops at nothing, and survives its engines."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import workers.guided_child
from db.corpus import corpus
from db.engine import open_database
from db.records import SliceResult
from fuzzer.build import build
from fuzzer.case import decode, encode
from fuzzer.compare import compare
from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.mutants.catalogue import MUTANTS
from reference.image import End, Image
from reference.run import run
from workers.guided import GuidedResult, GuidedSlice
from workers.guided_child import SELF_TEST, check_guidance
from workers.local import Settings, run_campaign
from workers.merging import merged

HERE = Path(__file__).parent
PROFILES = ("intel", "amd")


@pytest.fixture(scope="module")
def core() -> UnicornCore:
    return UnicornCore()


@pytest.fixture
def more_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.guided_child, "CHILD", (sys.executable, str(HERE / "guided_child_with_cores.py")))


def a_slice(**changes: object) -> GuidedSlice:
    work = GuidedSlice(0, "snippets", PROFILES, ("unicorn",), seed=5, first=0, count=400)
    return replace(work, **changes)  # type: ignore[arg-type]


def ignore(number: int, place: int) -> None:
    pass


def found(result: GuidedResult) -> tuple[object, ...]:
    return result.found.hits, result.found.findings, result.found.not_modelled, result.found.tolerated, result.corpus


@pytest.fixture(scope="module")
def once(core: UnicornCore) -> GuidedResult:
    return a_slice().run([core], ignore)


def test_a_slice_run_twice_says_the_same(core: UnicornCore, once: GuidedResult) -> None:
    assert found(a_slice().run([core], ignore)) == found(once)


def test_another_seed_says_something_else(core: UnicornCore, once: GuidedResult) -> None:
    assert a_slice(seed=6).run([core], ignore).corpus != once.corpus


def test_divergences_do_not_stop_it(once: GuidedResult) -> None:
    assert once.found.cases == 400
    assert sum(once.found.hits.values()) > 20


def test_every_finding_is_a_case_that_diverges(core: UnicornCore, once: GuidedResult) -> None:
    for finding in once.found.findings:
        image = build(decode(finding.case.data))
        assert compare(image, run(image), next(iter(core.run([image])))).differences


def test_what_it_keeps_are_canonical_cases_of_its_target_that_it_did_not_begin_with(core: UnicornCore, once: GuidedResult) -> None:
    again = a_slice(number=1, first=100, corpus=once.corpus).run([core], ignore)

    assert once.corpus
    assert all(encode(decode(data)) == data and decode(data).target == "snippets" for data in once.corpus)
    assert not set(again.corpus) & set(once.corpus)


def test_the_instrumented_specification_finds_the_same_way_each_time(core: UnicornCore) -> None:
    one, two = (a_slice(count=150, instrumented=True).run([core], ignore) for _ in range(2))

    assert found(one) == found(two)


@pytest.mark.usefixtures("more_cores")
@pytest.mark.parametrize(
    ("death", "end", "kind"), [("crash", End.CORE_CRASHED, "crash"), ("hang", End.CORE_HUNG, "hang")], ids=["crash", "hang"]
)
def test_an_engine_that_takes_the_child_down_costs_one_case(
    monkeypatch: pytest.MonkeyPatch, core: UnicornCore, death: str, end: End, kind: str
) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH", death)
    monkeypatch.setattr(workers.guided_child, "HANG_SECONDS", 2.0)

    result = a_slice(cores=("dying",), count=50).run([core], ignore).found

    lost = [finding for finding in result.findings if finding.observed["end"] == end.value]
    assert (result.cases, result.crashes) == (50, len(lost))
    assert [finding.bucket.kind for finding in lost][:1] == [kind]


@pytest.mark.usefixtures("more_cores")
def test_an_error_of_the_adapter_is_no_finding(monkeypatch: pytest.MonkeyPatch, core: UnicornCore) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH", "error")

    result = a_slice(cores=("dying",), count=50).run([core], ignore).found

    assert (result.cases, result.crashes) == (50, 0)
    assert result.not_modelled["unicorn: the adapter failed"] >= 1


def test_a_case_that_cannot_be_explained_is_a_finding_and_is_not_run_again(core: UnicornCore, once: GuidedResult) -> None:
    told: list[int] = []
    a_slice(count=60).run([core], lambda number, place: told.append(number))
    first = next(number for number in told if number >= 0)

    result = a_slice(count=60).without(first, 0, End.CORE_CRASHED).run([core], ignore).found

    assert result.crashes == 1
    assert "crash" in {finding.bucket.kind for finding in result.findings}


@pytest.mark.usefixtures("more_cores")
def test_a_planted_bug_is_found(core: UnicornCore) -> None:
    name = "core-rsp1-for-rsp0"
    planted = MUTANTS[name].core
    assert planted is not None

    result = a_slice(target="linux4", cores=(name,), count=150).run([planted()], ignore).found

    assert planted_ones(result, core)


def differs(image: Image, core: UnicornCore) -> bool:
    return bool(compare(image, run(image), next(iter(core.run([image])))).differences)


def planted_ones(result: SliceResult, core: UnicornCore) -> list[bytes]:
    """The cases in which only the planted bug shows: the core as it is agrees with the specification."""
    cases = [finding.case.data for finding in result.findings]
    images = [build(decode(data)) for data in cases]
    return [
        data for data, image in zip(cases, images, strict=True) if not compare(image, run(image), next(iter(core.run([image])))).differences
    ]


def test_counters_of_ours_guide_and_without_them_the_secret_stays_one() -> None:
    check_guidance()

    assert subprocess.run((*SELF_TEST, "--without-counters"), capture_output=True, check=False).returncode == 1


def test_guidance_that_is_blind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.guided_child, "SELF_TEST", (*SELF_TEST, "--without-counters"))

    with pytest.raises(CoreError, match="guided fuzzing is blind"):
        check_guidance.__wrapped__()


def test_a_merge_keeps_cases_of_the_corpus_and_a_second_one_keeps_them_all(once: GuidedResult) -> None:
    kept = merged("snippets", once.corpus, ["unicorn"])

    assert set(kept) <= set(once.corpus)
    assert 0 < len(kept) < len(once.corpus)


def campaign(path: Path, jobs: int) -> tuple[dict[str, int], set[str]]:
    settings = Settings(("linux4", "snippets"), ("unicorn",), 11, 240, None, jobs, PROFILES, str(path), "guided")
    buckets = {bucket.id: bucket.hits for bucket in run_campaign(settings).buckets}
    engine = open_database(str(path))
    digests = {row.digest for row in corpus(engine)}
    engine.dispose()
    return buckets, digests


def test_two_processes_find_and_keep_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.guided_campaign.SLICE_EXECUTIONS", 40)

    one = campaign(tmp_path / "one.db", jobs=1)

    assert all(one)
    assert campaign(tmp_path / "two.db", jobs=2) == one
