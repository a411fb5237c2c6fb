"""Condition codes and the instructions that set single flags (SDM Vol. 1, appendix B; Vol. 2A and 2B)."""

from __future__ import annotations

import pytest
from reference_alu import AF, ALL, CF, OF, PF, SF, ZF
from reference_machine import outcome, run

from reference.profiles import Cr4

DF, IF, AC = 0x400, 0x200, 0x4_0000
IOPL3 = 0x3000

CONDITIONS = [
    ("o", lambda f: f & OF),
    ("no", lambda f: not f & OF),
    ("b", lambda f: f & CF),
    ("ae", lambda f: not f & CF),
    ("e", lambda f: f & ZF),
    ("ne", lambda f: not f & ZF),
    ("be", lambda f: f & (CF | ZF)),
    ("a", lambda f: not f & CF and not f & ZF),
    ("s", lambda f: f & SF),
    ("ns", lambda f: not f & SF),
    ("p", lambda f: f & PF),
    ("np", lambda f: not f & PF),
    ("l", lambda f: bool(f & SF) != bool(f & OF)),
    ("ge", lambda f: bool(f & SF) == bool(f & OF)),
    ("le", lambda f: f & ZF or bool(f & SF) != bool(f & OF)),
    ("g", lambda f: not f & ZF and bool(f & SF) == bool(f & OF)),
]


@pytest.mark.parametrize(("code", "holds"), [pytest.param(n, holds, id=name) for n, (name, holds) in enumerate(CONDITIONS)])
def test_condition_codes(code: int, holds: object) -> None:
    for flags in (
        CF * c | PF * p | ZF * z | SF * s | OF * o for c in (0, 1) for p in (0, 1) for z in (0, 1) for s in (0, 1) for o in (0, 1)
    ):
        # setcc al; cmovcc ecx, edx; jcc over inc rbx
        ended = run(f"0f{0x90 | code:02x}c0 0f{0x40 | code:02x}ca {0x70 | code:02x}03 48ffc3", rflags=2 | flags, rcx=1 << 32, rdx=7)

        expected = bool(holds(flags))  # type: ignore[operator]
        assert [ended.register(name) for name in ("rax", "rcx", "rbx")] == [expected, 7 if expected else 0, not expected]


@pytest.mark.parametrize("code", range(16))
@pytest.mark.parametrize("opcode", ["0f9{:x}c0", "0f4{:x}c8", "7{:x}00"])
def test_a_condition_on_an_undefined_flag_is_not_modelled(opcode: str, code: int) -> None:
    # shl al, cl with a count of 9 leaves CF, OF and AF undefined
    needs = ("o", "no", "b", "ae", "be", "a", "l", "ge", "le", "g")
    expected = "not modelled: reads an undefined flag" if CONDITIONS[code][0] in needs else "ended"

    assert outcome(run("d2e0" + opcode.format(code), rcx=9)) == expected


@pytest.mark.parametrize(
    ("code", "cleared", "flipped"),
    [
        pytest.param("f8", CF, 0, id="clc"),
        pytest.param("f9", CF, CF, id="stc"),
        pytest.param("f5", 0, CF, id="cmc"),
        pytest.param("fc", DF, 0, id="cld"),
        pytest.param("fd", DF, DF, id="std"),
        pytest.param("fa", IF, 0, id="cli"),
        pytest.param("fb", IF, IF, id="sti"),
    ],
)
@pytest.mark.parametrize("before", [2, 2 | ALL | DF | IF])
def test_single_flags(code: str, cleared: int, flipped: int, before: int) -> None:
    assert run(code, rflags=before).register("rflags") == before & ~cleared ^ flipped


@pytest.mark.parametrize(("code", "left"), [("f8", OF | AF), ("f9", OF | AF)])
def test_clc_and_stc_define_cf(code: str, left: int) -> None:
    assert run("d2e0" + code, rcx=9).undefined.rflags == left


@pytest.mark.parametrize("code", [pytest.param("fa", id="cli"), pytest.param("fb", id="sti")])
@pytest.mark.parametrize(("cpl", "iopl", "expected"), [(0, 0, "ended"), (3, 0, "#GP(0x0)"), (3, 0x2000, "#GP(0x0)"), (3, IOPL3, "ended")])
def test_cli_and_sti_need_cpl_at_most_iopl(code: str, cpl: int, iopl: int, expected: str) -> None:
    assert outcome(run(code, cpl, rflags=2 | iopl)) == expected


@pytest.mark.parametrize(("cpl", "expected"), [(0, "ended"), (3, "not modelled: protected-mode virtual interrupts")])
def test_pvi_is_not_modelled_at_cpl_3(cpl: int, expected: str) -> None:
    assert outcome(run("fa", cpl, cr4=0x60 | Cr4.PVI)) == expected


@pytest.mark.parametrize(("code", "after"), [pytest.param("0f01ca", 0, id="clac"), pytest.param("0f01cb", AC, id="stac")])
def test_clac_and_stac(code: str, after: int) -> None:
    for before in (0, AC):
        assert run(code, rflags=2 | before).register("rflags") == 2 | after
    assert outcome(run(code, 3)) == "#UD"
    assert outcome(run(code, profile="intel-2012")) == "#UD"
