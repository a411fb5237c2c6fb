"""A fault that meets another: by their classes it is delivered in turn, becomes #DF or stops the processor (SDM Vol. 3A, 7.15)."""

from __future__ import annotations

import pytest
from reference_machine import (
    UNMAPPED,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_RSP,
    frame,
    gate,
    handler,
    outcome,
    outcomes,
    q,
    run,
)

from reference.image import End

V = 0x72


@pytest.mark.parametrize(
    ("code", "vector", "parts", "delivered"),
    [
        pytest.param("0f0b", 6, {}, ["#NP"], id="benign-then-contributory"),
        pytest.param("f4", 13, {"cpl": 3}, ["#DF"], id="contributory-then-contributory"),
        pytest.param("f6f0", 0, {"rax": 0}, ["#DF"], id="divide-error-is-contributory"),
        pytest.param("8b00", 14, {"rax": UNMAPPED}, ["#DF"], id="page-fault-then-contributory"),
        pytest.param("cd0d", 13, {}, ["#NP"], id="int-13-is-benign"),
    ],
)  # fmt: skip
def test_a_second_fault_becomes_a_double_fault_by_the_classes(code: str, vector: int, parts: dict[str, int], delivered: list[str]) -> None:
    assert outcomes(run(code, idt={vector: gate(handler(vector), present=False)}, **parts)) == delivered


@pytest.mark.parametrize(
    ("code", "vector", "parts", "delivered"),
    [
        pytest.param("f4", 13, {"cpl": 3}, ["#PF"], id="contributory-then-page-fault"),
        pytest.param("8b00", 14, {"rax": 0}, ["#DF"], id="page-fault-then-page-fault"),
        pytest.param("0f0b", 6, {}, ["#PF"], id="benign-then-page-fault"),
    ],
)  # fmt: skip
def test_a_page_fault_on_the_handlers_stack(code: str, vector: int, parts: dict[str, int], delivered: list[str]) -> None:
    ended = run(code, idt={vector: gate(handler(vector), ist=1)}, tss={36: q(UNMAPPED)}, **parts)

    assert outcomes(ended) == delivered
    assert ended.register("cr2") == UNMAPPED - 8


def test_the_frame_of_a_double_fault_has_error_code_0_and_no_rf() -> None:
    ended = run("f4", 3, idt={13: gate(handler(13), present=False)})

    assert outcome(ended) == "#DF(0x0)"
    assert frame(ended, error_code=True) == (USER_CODE, USER_CS, 0x2, USER_RSP, USER_DS)


@pytest.mark.parametrize("absent", [13, 8])
def test_a_fault_while_a_double_fault_is_delivered_shuts_down(absent: int) -> None:
    parts = {13: gate(handler(13), present=False), 8: gate(handler(8), ist=1), absent: gate(handler(absent), present=False)}

    ended = run("f4", 3, idt=parts, tss={36: q(UNMAPPED)})

    assert (ended.end, ended.deliveries) == (End.SHUTDOWN, ())


def test_a_nested_fault_has_ext_1_even_after_int_n() -> None:
    ended = run("cd72", idt={V: gate(handler(V), present=False), 11: gate(handler(11), 0x100)})

    assert outcome(ended) == "#DF(0x0)"
