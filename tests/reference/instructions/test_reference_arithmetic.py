"""Integer arithmetic and logic: results, the six flags, and which of them mean nothing (SDM Vol. 2A to 2D)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_alu import AF, ALL, CF, OF, PF, SF, ZF, difference_flags, execute, result_flags, signed, sum_flags
from reference_machine import KERNEL_DATA, outcome, peek, run

from reference.image import Observation

WIDTHS = [8, 16, 32, 64]
EDGES = [
    0,
    1,
    0xF,
    0x10,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]
words = st.one_of(st.sampled_from(EDGES), st.integers(0, (1 << 64) - 1))
FEW = settings(max_examples=40, deadline=None)


def encode(opcode: int, bits: int, extension: int | None = None) -> str:
    """`opcode` with destination RAX and source RCX (or /extension), at a width; the opcode is that of the 16- to 64-bit form."""
    modrm = 0xC8 if extension is None else 0xC0 | extension << 3
    prefix = {8: "", 16: "66", 32: "", 64: "48"}[bits]
    return f"{prefix}{opcode & ~1 if bits == 8 else opcode:02x}{modrm:02x}"


def merged(old: int, result: int, bits: int) -> int:
    """RAX after its low `bits` bits were written (SDM Vol. 1, 3.4.1.1)."""
    mask = (1 << bits) - 1
    return result if bits >= 32 else old & ~mask | result & mask


def flags_of(ended: Observation) -> int:
    return ended.register("rflags") & ALL


SUMS = {
    "add": (0x01, sum_flags, False),
    "adc": (0x11, sum_flags, True),
    "sub": (0x29, difference_flags, False),
    "sbb": (0x19, difference_flags, True),
}


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", SUMS)
@FEW
@given(a=words, b=words, carry=st.integers(0, 1))
def test_sums_and_differences(name: str, bits: int, a: int, b: int, carry: int) -> None:
    opcode, model, takes_carry = SUMS[name]
    mask = (1 << bits) - 1

    ended = execute(encode(opcode, bits), {"rax": a, "rcx": b, "rflags": 2 | carry})

    result, flags = model(a & mask, b & mask, carry if takes_carry else 0, bits)
    assert (ended.register("rax"), flags_of(ended), ended.undefined.rflags) == (merged(a, result, bits), flags, 0)


@pytest.mark.parametrize("bits", WIDTHS)
@FEW
@given(a=words, b=words)
def test_cmp_is_a_subtraction_without_a_result(bits: int, a: int, b: int) -> None:
    mask = (1 << bits) - 1

    ended = execute(encode(0x39, bits), {"rax": a, "rcx": b})

    assert (ended.register("rax"), flags_of(ended)) == (a, difference_flags(a & mask, b & mask, 0, bits)[1])


LOGIC = {"and": (0x21, lambda a, b: a & b), "or": (0x09, lambda a, b: a | b), "xor": (0x31, lambda a, b: a ^ b)}


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", LOGIC)
@FEW
@given(a=words, b=words)
def test_logic_clears_cf_and_of_and_leaves_af_undefined(name: str, bits: int, a: int, b: int) -> None:
    opcode, model = LOGIC[name]
    mask = (1 << bits) - 1

    ended = execute(encode(opcode, bits), {"rax": a, "rcx": b, "rflags": 2 | CF | OF})

    result = model(a, b) & mask
    assert (ended.register("rax"), flags_of(ended) & ~AF) == (merged(a, result, bits), result_flags(result, bits))
    assert ended.undefined.rflags == AF


@FEW
@given(a=words, b=words)
def test_test_is_an_and_without_a_result(a: int, b: int) -> None:
    ended = execute("4885c8", {"rax": a, "rcx": b, "rflags": 2 | CF | OF})

    assert (ended.register("rax"), flags_of(ended) & ~AF, ended.undefined.rflags) == (a, result_flags(a & b, 64), AF)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("extension", "model"), [pytest.param(0, sum_flags, id="inc"), pytest.param(1, difference_flags, id="dec")])
@FEW
@given(a=words, carry=st.integers(0, 1))
def test_inc_and_dec_leave_cf(extension: int, model: object, bits: int, a: int, carry: int) -> None:
    ended = execute(encode(0xFF, bits, extension), {"rax": a, "rflags": 2 | carry})

    result, flags = model(a & (1 << bits) - 1, 1, 0, bits)  # type: ignore[operator]
    assert (ended.register("rax"), flags_of(ended)) == (merged(a, result, bits), flags & ~CF | carry)


@pytest.mark.parametrize("code", [pytest.param("ffc0", id="inc"), pytest.param("ffc8", id="dec")])
def test_inc_and_dec_leave_an_undefined_cf_undefined(code: str) -> None:
    # shl al, cl with a count of 9 leaves CF, OF and AF undefined
    assert run("d2e0" + code, rcx=9).undefined.rflags == CF


@pytest.mark.parametrize("bits", WIDTHS)
@FEW
@given(a=words)
def test_neg_subtracts_from_0(bits: int, a: int) -> None:
    ended = execute(encode(0xF7, bits, 3), {"rax": a})

    result, flags = difference_flags(0, a & (1 << bits) - 1, 0, bits)
    assert (ended.register("rax"), flags_of(ended)) == (merged(a, result, bits), flags)
    assert bool(flags & CF) == bool(a & (1 << bits) - 1)


@pytest.mark.parametrize("bits", WIDTHS)
@FEW
@given(a=words)
def test_not_changes_no_flag(bits: int, a: int) -> None:
    ended = execute(encode(0xF7, bits, 2), {"rax": a, "rflags": 2 | ALL})

    assert (ended.register("rax"), flags_of(ended)) == (merged(a, ~a & (1 << bits) - 1, bits), ALL)


def split(low: int, high: int, bits: int) -> dict[str, int]:
    """RAX and RDX that hold a double-width number."""
    return {"rax": high << 8 | low} if bits == 8 else {"rax": low, "rdx": high}


def joined(ended: Observation, bits: int) -> tuple[int, int]:
    """(low, high) halves of a double-width result."""
    rax, rdx, mask = ended.register("rax"), ended.register("rdx"), (1 << bits) - 1
    return (rax & 0xFF, rax >> 8 & 0xFF) if bits == 8 else (rax & mask, rdx & mask)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("extension", "is_signed"), [pytest.param(4, False, id="mul"), pytest.param(5, True, id="imul")])
@FEW
@given(a=words, b=words)
def test_a_double_width_product(extension: int, is_signed: bool, bits: int, a: int, b: int) -> None:
    mask = (1 << bits) - 1
    number = (lambda value: signed(value & mask, bits)) if is_signed else (lambda value: value & mask)

    ended = execute(f"{encode(0xF7, bits, extension)[:-2]}{0xC1 | extension << 3:02x}", {"rax": a, "rcx": b})

    product = number(a) * number(b)
    low, high = joined(ended, bits)
    assert (high << bits | low) == product & (1 << 2 * bits) - 1
    assert flags_of(ended) & (CF | OF) == (0 if number(low) == product else CF | OF)
    assert ended.undefined.rflags == SF | ZF | AF | PF


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("form", ["two", "three"])
@FEW
@given(a=words, b=words, immediate=st.integers(-128, 127))
def test_a_product_that_is_cut(form: str, bits: int, a: int, b: int, immediate: int) -> None:
    prefix, mask = {16: "66", 32: "", 64: "48"}[bits], (1 << bits) - 1
    code = f"{prefix}0fafc1" if form == "two" else f"{prefix}6bc1{immediate & 0xFF:02x}"

    ended = execute(code, {"rax": a, "rcx": b})

    product = signed(b & mask, bits) * (signed(a & mask, bits) if form == "two" else immediate)
    assert ended.register("rax") == merged(a, product & mask, bits)
    assert flags_of(ended) & (CF | OF) == (0 if signed(product & mask, bits) == product else CF | OF)
    assert ended.undefined.rflags == SF | ZF | AF | PF


def divide(a: int, b: int) -> tuple[int, int]:
    """(quotient, remainder), rounded towards 0, by repeated comparison of magnitudes only."""
    quotient = abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)
    return quotient, a - quotient * b


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("extension", "is_signed"), [pytest.param(6, False, id="div"), pytest.param(7, True, id="idiv")])
@settings(max_examples=80, deadline=None)
@given(low=words, high=st.one_of(st.sampled_from([0, 1, (1 << 64) - 1]), words), divisor=words)
def test_division(extension: int, is_signed: bool, bits: int, low: int, high: int, divisor: int) -> None:
    mask = (1 << bits) - 1
    low, high, divisor = low & mask, high & mask, divisor & mask
    code = f"{encode(0xF7, bits, extension)[:-2]}{0xC1 | extension << 3:02x}"
    dividend, by, least, most = (high << bits) | low, divisor, 0, mask
    if is_signed:
        dividend, by, least, most = signed(dividend, 2 * bits), signed(divisor, bits), -(1 << bits - 1), (1 << bits - 1) - 1
    parts = {**split(low, high, bits), "rcx": divisor}

    if by == 0 or not least <= divide(dividend, by)[0] <= most:
        assert outcome(run(code, **parts)) == "#DE"
        return
    ended = execute(code, parts)

    quotient, remainder = divide(dividend, by)
    assert joined(ended, bits) == (quotient & mask, remainder & mask)
    assert ended.undefined.rflags == ALL


@pytest.mark.parametrize("code", [pytest.param("f7f1", id="div"), pytest.param("f7f9", id="idiv")])
def test_a_divide_error_changes_nothing(code: str) -> None:
    ended = run(code, rax=7, rdx=9, rcx=0)

    assert (outcome(ended), ended.register("rax"), ended.register("rdx"), ended.undefined.rflags) == ("#DE", 7, 9, 0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("6698", 0x1234_5678_1234_FF80, id="cbw"),
        pytest.param("98", 0xFFFF_8080, id="cwde"),
        pytest.param("4898", 0xFFFF_FFFF_8000_8080, id="cdqe"),
    ],
)
def test_sign_extension_of_the_accumulator(code: str, expected: int) -> None:
    low = {"6698": 0x1234_0080, "98": 0x1234_8080, "4898": 0x8000_8080}[code]

    assert execute(code, {"rax": 0x1234_5678_0000_0000 | low}).register("rax") == expected
    assert execute(code, {"rax": 0x1234_5678_0000_0001}).register("rax") == (1 if code != "6698" else 0x1234_5678_0000_0001)


@pytest.mark.parametrize(
    ("code", "bits", "negative"),
    [
        pytest.param("6699", 16, 0x1234_5678_9ABC_FFFF, id="cwd"),
        pytest.param("99", 32, 0xFFFF_FFFF, id="cdq"),
        pytest.param("4899", 64, 0xFFFF_FFFF_FFFF_FFFF, id="cqo"),
    ],
)
def test_the_sign_of_the_accumulator_fills_rdx(code: str, bits: int, negative: int) -> None:
    rdx = 0x1234_5678_9ABC_DEF0

    assert execute(code, {"rax": 1 << bits - 1, "rdx": rdx}).register("rdx") == negative
    assert execute(code, {"rax": (1 << bits - 1) - 1, "rdx": rdx}).register("rdx") == (0x1234_5678_9ABC_0000 if bits == 16 else 0)


@pytest.mark.parametrize(("code", "expected"), [("00e0", 0x0302), ("00c4", 0x0503), ("88e0", 0x0303 - 0x0)])
def test_high_byte_registers(code: str, expected: int) -> None:
    # add al, ah; add ah, al; mov al, ah
    start = {"00e0": 0x03FF, "00c4": 0x0203, "88e0": 0x0301}[code]

    assert execute(code, {"rax": start}).register("rax") == expected


def test_byte_registers_with_a_rex_prefix_are_spl_to_dil() -> None:
    assert execute("4000f8", {"rax": 1, "rdi": 0x0605}).register("rax") == 6  # add al, dil
    assert execute("00f8", {"rax": 1, "rbx": 0x0605}).register("rax") == 7  # add al, bh


def test_memory_operands_are_read_and_written_at_their_width() -> None:
    ended = run("660108", rax=KERNEL_DATA, rcx=1, memory={KERNEL_DATA: b"\xff\xff\xff\xff"})

    assert peek(ended, KERNEL_DATA, 4) == 0xFFFF_0000
    assert flags_of(ended) == CF | PF | AF | ZF


def test_an_immediate_byte_is_sign_extended() -> None:
    assert execute("4883c0ff", {"rax": 1}).register("rax") == 0
    assert execute("4805000000 80".replace(" ", ""), {"rax": 0}).register("rax") == 0xFFFF_FFFF_8000_0000


def test_other_flags_stay_as_they_were() -> None:
    others = 0x27_7400 | 2

    assert execute("01c8", {"rax": 1, "rcx": 1, "rflags": others & ~0x1_4300}).register("rflags") & ~ALL == others & ~0x1_4300
