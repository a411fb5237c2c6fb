"""CR0.TS, EM and MP: which instructions they make #NM or #UD, and CLTS (SDM Vol. 3A, 2.5)."""

from __future__ import annotations

import pytest
from reference_compatibility import run32
from reference_machine import KERNEL_CODE, frame, outcome, run

MP, EM, TS, OSFXSR = 1 << 1, 1 << 2, 1 << 3, 1 << 9
CR0, CR4 = 0x8005_0031, 1 << 5 | 1 << 6 | OSFXSR
FNOP, FNINIT, WAIT, MOVAPS, MOVUPS, CLTS = "d9d0", "dbe3", "9b", "0f28c1", "0f10c1", "0f06"


@pytest.mark.parametrize(
    ("code", "set_in_cr0", "expected"),
    [
        pytest.param(FNOP, TS, "#NM", id="x87-with-ts"),
        pytest.param(FNINIT, EM, "#NM", id="x87-with-em"),
        pytest.param(FNINIT, EM | TS, "#NM", id="x87-with-both"),
        pytest.param(FNOP, MP, "not modelled: fnop", id="x87-with-mp-alone"),
        pytest.param(WAIT, MP | TS, "#NM", id="wait-with-mp-and-ts"),
        pytest.param(WAIT, TS, "not modelled: wait", id="wait-with-ts-alone"),
        pytest.param(WAIT, MP | EM, "not modelled: wait", id="wait-with-em"),
        pytest.param(MOVAPS, TS, "#NM", id="sse-with-ts"),
        pytest.param(MOVUPS, EM, "#UD", id="sse-with-em"),
        pytest.param(MOVAPS, EM | TS, "#UD", id="sse-with-both"),
        pytest.param(MOVAPS, 0, "not modelled: movaps", id="sse-with-neither"),
    ],
)
@pytest.mark.parametrize("start", [run, run32])
def test_what_cr0_forbids(start, code: str, set_in_cr0: int, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert outcome(start(code, cr0=CR0 | set_in_cr0, cr4=CR4)) == expected


def test_sse_needs_osfxsr() -> None:
    assert outcome(run(MOVAPS, cr0=CR0 | TS, cr4=CR4 & ~OSFXSR)) == "#UD"


def test_nm_is_a_fault() -> None:
    ended = run("90" + FNOP, cr0=CR0 | TS)

    assert (outcome(ended), frame(ended).rip) == ("#NM", KERNEL_CODE + 1)


def test_clts_clears_ts_in_the_kernel_only() -> None:
    assert run(CLTS, cr0=CR0 | TS | MP).register("cr0") == CR0 | MP
    assert outcome(run(CLTS, 3)) == "#GP(0x0)"
