"""The specification agrees with the processor; a planted wrong rule is found; what cannot be asked says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuzzer_planted import Copy, copied_reference
from iced_x86 import Mnemonic
from silicon_cases import fitted, silicon, snippet

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.silicon import Verdict, agree, ask
from fuzzer.silicon_check import check, generated
from fuzzer.targets import layout

CASES = range(1500)


def test_the_specification_agrees_with_the_processor() -> None:
    if silicon().profile.vendor != "amd":
        pytest.skip("silicon: a processor of this vendor was not checked at length yet; `entryfuzz cores silicon-check` does")

    tally = check(11, CASES, silicon())

    assert tally.differing == []
    assert tally.compared + tally.open.total() + tally.unrepeatable == len(CASES)
    assert tally.compared > 0.8 * len(CASES)


def verr_ignores_dpl(copy: Copy) -> None:
    copy.module("instructions").BY_MNEMONIC[Mnemonic.VERR] = copy.module("instructions.tables").verw


def retf_takes_no_null_selector_for_a_fault(copy: Copy) -> None:
    copy.module("instructions.far").is_null = lambda selector: False


def iretq_keeps_nt(copy: Copy) -> None:
    far = copy.module("instructions.far")
    right = far.returned_flags
    far.returned_flags = lambda m, image, size: right(m, image & ~(1 << 14), size)


def faults_save_no_rf(copy: Copy) -> None:
    delivery = copy.module("delivery")
    right = delivery.frame_words

    def wrong(m: Any, entry: Any) -> list[int]:
        words: list[int] = right(m, entry)
        words[2] &= ~(1 << 16)
        return words

    delivery.frame_words = wrong


PLANTS = [verr_ignores_dpl, retf_takes_no_null_selector_for_a_fault, iretq_keeps_nt, faults_save_no_rf]


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.__name__ for plant in PLANTS])
def test_a_planted_wrong_rule_is_found(plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silicon()
    with copied_reference(tmp_path, "planted_reference") as copy:
        plant(copy)
        for name in ("boot", "step", "load_implicit"):
            module = {"boot": "boot", "step": "run", "load_implicit": "memory"}[name]
            monkeypatch.setattr(f"fuzzer.first_event.{name}", getattr(copy.module(module), name))
        monkeypatch.setattr("fuzzer.first_event.Ended", copy.module("delivery").Ended)
        for name in ("Fault", "NotModelled", "Shutdown"):
            monkeypatch.setattr(f"fuzzer.first_event.{name}", getattr(copy.module("faults"), name))
        monkeypatch.setattr("fuzzer.first_event.UMIP_RULE", copy.module("instructions.tables").UMIP_RULE)

        tally = check(12, range(1500), silicon())

    assert tally.differing


def answer(case: Case) -> tuple[str, str, str, str]:
    given = ask(build(case), silicon())
    return given.verdict.value, given.spec, given.silicon, given.detail


def test_a_stored_case_is_asked() -> None:
    assert answer(snippet("0f0b")) == ("agrees", "#UD", "#UD", "")


@pytest.mark.parametrize(
    ("case", "why"),
    [
        pytest.param(Case("snippets", "kernel", "amd"), "it does not begin in user mode", id="kernel"),
        pytest.param(Case("snippets", "user", "intel"), "another vendor", id="other-vendor"),
        pytest.param(snippet, "CR4.UMIP", id="umip"),
    ],
)
def test_what_cannot_be_asked_says_why(case: Any, why: str) -> None:
    if silicon().profile.vendor != "amd":
        pytest.skip("silicon: the cases are written for a processor of AMD's")
    made = case if isinstance(case, Case) else snippet("0f01e0")  # smsw eax

    given = ask(build(made), silicon())

    assert given.verdict is Verdict.UNASKED
    assert why in given.detail


def test_a_case_whose_descriptors_the_host_has_not_cannot_be_asked() -> None:
    given = ask(build(snippet("8ed8", rax=0x9B)), silicon())  # mov ds, eax

    assert (given.verdict, given.spec) == (Verdict.UNASKED, "ended")
    assert given.detail == "its first event depends on what the host's kernel has otherwise"


def test_a_difference_is_told_field_by_field() -> None:
    image = fitted(snippet("0f0b", rax=1))
    other = fitted(snippet("0f0b", rax=2))
    one, two = silicon().first([image, other])

    found = agree(image.image, one, two, hypervisor=False)

    assert [(each.field, each.expected, each.observed) for each in found.differences] == [("rax", 1, 2)]


def test_a_reported_case_means_the_same_without_the_host() -> None:
    """Kernel tables and what Linux does not map are patches of the case: `ask` finds nothing to replace that matters."""
    cases = (silicon().host.whole(generated(5, number, silicon().profile.name)) for number in range(200))

    verdicts = [ask(build(case), silicon()).verdict for case in cases]

    assert verdicts.count(Verdict.AGREES) > 150


def test_the_user_stack_is_where_the_image_has_it() -> None:
    (seen,) = silicon().first([fitted(snippet("54 cc", rsp=layout.USER_STACK.end))])

    (page,) = seen.memory.values()
    assert page[-8:] == layout.USER_STACK.end.to_bytes(8, "little")
