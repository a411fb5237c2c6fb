"""A wrong rule planted in a copy of the specification is found by running generated cases on the real engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fuzzer_builders import generated
from fuzzer_planted import Copy, copied_reference
from iced_x86 import Mnemonic

from fuzzer.build import build
from fuzzer.compare import compare
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.explain import explain
from fuzzer.signature import Signature
from reference.bits import IF, RF
from reference.image import Image, Observation
from reference.run import run

CASES = 400


@cache
def images(target: str) -> tuple[Image, ...]:
    return tuple(build(case) for case in generated(41, CASES, [target]))


@cache
def observations(core: UnicornCore, target: str) -> tuple[Observation, ...]:
    return tuple(core.run(images(target)))


Found = dict[tuple[int, str], Signature]
"""Divergences by the number of the case and the text of the signature."""


def divergences(core: UnicornCore, target: str, spec: Callable[[Image], Observation]) -> Found:
    """Of every case on which `spec` and the core differ."""
    found = {}
    for number, (image, seen) in enumerate(zip(images(target), observations(core, target), strict=True)):
        if compare(image, spec(image), seen).differences:
            explanation = explain(image, core)
            if explanation is not None:
                found[number, explanation.signature.text] = explanation.signature
    return found


@pytest.fixture(scope="module")
def clean(core: UnicornCore) -> Callable[[str], Found]:
    return cache(lambda target: divergences(core, target, run))


def replace_rule(copy: Copy, mnemonics: Sequence[int], wrong: Callable[[Callable[..., int]], Callable[..., int]]) -> None:
    table = copy.module("instructions").BY_MNEMONIC
    for mnemonic in mnemonics:
        table[mnemonic] = wrong(table[mnemonic])


def swapgs_does_nothing(copy: Copy) -> None:
    replace_rule(copy, [Mnemonic.SWAPGS], lambda rule: lambda m, i, end: end)


def iretq_drops_rf(copy: Copy) -> None:
    def wrong(rule: Callable[..., int]) -> Callable[..., int]:
        def iretq(m: Any, i: Any, end: int) -> int:
            target = rule(m, i, end)
            m.rflags &= ~RF
            return target

        return iretq

    replace_rule(copy, [Mnemonic.IRETQ], wrong)


def wrgsbase_writes_the_other_base(copy: Copy) -> None:
    def wrong(rule: Callable[..., int]) -> Callable[..., int]:
        def wrgsbase(m: Any, i: Any, end: int) -> int:
            before = m.gs.base
            target = rule(m, i, end)
            m.kernel_gs_base, m.gs.base = m.gs.base, before
            return target

        return wrgsbase

    replace_rule(copy, [Mnemonic.WRGSBASE], wrong)


def delivery_does_not_align(copy: Copy) -> None:
    delivery = copy.module("delivery")
    right = delivery.choose_stack

    def choose_stack(m: Any, gate: Any, cpl: int, entry: Any) -> int:
        stack: int = right(m, gate, cpl, entry)
        return m.gpr[4] if not gate.ist and cpl == m.cpl else stack

    delivery.choose_stack = choose_stack


def delivery_keeps_if(copy: Copy) -> None:
    delivery = copy.module("delivery")
    right = delivery._switch

    def switch(m: Any, *rest: Any) -> None:
        before = m.rflags
        right(m, *rest)
        m.rflags |= before & IF

    delivery._switch = switch


def no_sti_shadow(copy: Copy) -> None:
    def wrong(rule: Callable[..., int]) -> Callable[..., int]:
        def sti(m: Any, i: Any, end: int) -> int:
            target = rule(m, i, end)
            m.shadow = False
            return target

        return sti

    replace_rule(copy, [Mnemonic.STI], wrong)


PLANTS = [
    # the plant, a target on which it shows, the cause its bucket has
    pytest.param(swapgs_does_nothing, "snippets", "swapgs", id="swapgs-does-nothing"),
    pytest.param(swapgs_does_nothing, "linux4", "swapgs", id="swapgs-does-nothing-in-entry-code"),
    pytest.param(iretq_drops_rf, "snippets", "iretq", id="iretq-drops-rf"),
    pytest.param(wrgsbase_writes_the_other_base, "snippets", "wrgsbase", id="wrgsbase-writes-the-other-base"),
    pytest.param(delivery_does_not_align, "snippets", "event delivery", id="delivery-does-not-align"),
    pytest.param(delivery_keeps_if, "linux4", "event delivery", id="delivery-keeps-if"),
    pytest.param(no_sti_shadow, "linux4", "event held back", id="no-sti-shadow"),
]


@pytest.mark.parametrize(("plant", "target", "cause"), PLANTS)
def test_a_planted_wrong_rule_is_found(
    core: UnicornCore,
    clean: Callable[[str], Found],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Copy], None],
    target: str,
    cause: str,
) -> None:
    expected = clean(target)
    with copied_reference(tmp_path, "planted_reference") as copy:
        plant(copy)
        monkeypatch.setattr("fuzzer.alignment.trace", copy.module("trace").trace)

        found = divergences(core, target, copy.module("run").run)

    assert cause in {found[key].cause for key in found.keys() - expected.keys()}


def test_the_copy_without_a_plant_finds_what_the_original_finds(
    core: UnicornCore, clean: Callable[[str], Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with copied_reference(tmp_path, "planted_reference") as copy:
        monkeypatch.setattr("fuzzer.alignment.trace", copy.module("trace").trace)
        found = divergences(core, "snippets", copy.module("run").run)

    assert found == clean("snippets")


def test_the_copy_is_another_package(tmp_path: Path) -> None:
    with copied_reference(tmp_path, "planted_reference") as copy:
        module = copy.module("delivery")

        assert Path(module.__file__).is_relative_to(tmp_path)
        assert module.Machine.__module__ == "planted_reference.machine"
