"""Shifts, rotates and bit tests, with the flags that a count leaves undefined (SDM Vol. 2B, SHL and ROL; Vol. 2A, BT)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_alu import AF, ALL, CF, OF, PF, SF, ZF, execute, result_flags
from reference_machine import KERNEL_DATA, outcome, peek, run

WIDTHS = [8, 16, 32, 64]
values = st.one_of(
    st.sampled_from([0, 1, 0x80, 0x8000, 0x8000_0000, 1 << 63, (1 << 64) - 1, 0x4000_0000_4000_4040]), st.integers(0, (1 << 64) - 1)
)
FEW = settings(max_examples=60, deadline=None)
SLOT = {"rol": 0, "ror": 1, "shl": 4, "shr": 5, "sal": 6, "sar": 7}


def by_cl(name: str, bits: int) -> str:
    """The shift of RAX by CL."""
    prefix = {8: "", 16: "66", 32: "", 64: "48"}[bits]
    return f"{prefix}{0xD2 if bits == 8 else 0xD3:02x}{0xC0 | SLOT[name] << 3:02x}"


def one_step(name: str, value: int, bits: int) -> tuple[int, int]:
    """(value, bit that left) after a shift or rotate by one place, on a list of bits with the lowest first."""
    cells = [value >> n & 1 for n in range(bits)]
    if name in ("shl", "sal", "rol"):
        out = cells.pop()
        cells.insert(0, out if name == "rol" else 0)
    else:
        top = cells[-1]
        out = cells.pop(0)
        cells.append({"shr": 0, "sar": top, "ror": out}[name])
    return sum(bit << n for n, bit in enumerate(cells)), out


def shifted(name: str, value: int, count: int, bits: int) -> tuple[int, int]:
    """(result, last bit out) after `count` steps."""
    out = 0
    for _ in range(count):
        value, out = one_step(name, value, bits)
    return value, out


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", ["shl", "sal", "shr", "sar"])
@FEW
@given(value=values, count=st.integers(0, 255))
def test_shifts(name: str, bits: int, value: int, count: int) -> None:
    mask = (1 << bits) - 1
    masked = count & (63 if bits == 64 else 31)

    ended = execute(by_cl(name, bits), {"rax": value, "rcx": count, "rflags": 2 | ALL})

    result, out = shifted(name, value & mask, masked, bits)
    assert ended.register("rax") == (result if bits >= 32 else value & ~mask | result)
    undefined = ended.undefined.rflags
    if masked == 0:
        assert (ended.register("rflags") & ALL, undefined) == (ALL, 0)
        return
    top_before, top_after = value >> bits - 1 & 1, result >> bits - 1
    overflow = {"shl": top_after ^ out, "sal": top_after ^ out, "shr": top_before, "sar": 0}[name]
    expected = result_flags(result, bits) | CF * out | OF * overflow
    assert undefined == AF | OF * (masked != 1) | CF * (masked >= bits and name != "sar")
    assert (ended.register("rflags") ^ expected) & ALL & ~undefined == 0


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", ["rol", "ror"])
@FEW
@given(value=values, count=st.integers(0, 255), flags=st.integers(0, ALL).map(lambda bits: bits & ALL))
def test_rotates(name: str, bits: int, value: int, count: int, flags: int) -> None:
    mask = (1 << bits) - 1
    masked = count & (63 if bits == 64 else 31)

    ended = execute(by_cl(name, bits), {"rax": value, "rcx": count, "rflags": 2 | flags})

    result, _ = shifted(name, value & mask, masked, bits)
    assert ended.register("rax") == (result if bits >= 32 else value & ~mask | result)
    if masked == 0:
        assert (ended.register("rflags") & ALL, ended.undefined.rflags) == (flags, 0)
        return
    top, second, low = result >> bits - 1 & 1, result >> bits - 2 & 1, result & 1
    carry, overflow = (low, top ^ low) if name == "rol" else (top, top ^ second)
    expected = flags & ~(CF | OF) | CF * carry | OF * overflow
    assert ended.undefined.rflags == OF * (masked != 1)
    assert (ended.register("rflags") ^ expected) & ALL & ~ended.undefined.rflags == 0


@pytest.mark.parametrize(("code", "result"), [pytest.param("d1e0", 6, id="by-one"), pytest.param("c1e004", 48, id="by-immediate")])
def test_the_other_encodings_of_a_count(code: str, result: int) -> None:
    assert execute(code, {"rax": 3}).register("rax") == result


def test_a_shift_by_0_still_clears_the_upper_half_of_a_32_bit_destination() -> None:
    assert execute("d3e0", {"rax": 0x1_0000_0002, "rcx": 32}).register("rax") == 2


def test_a_rotate_leaves_flags_that_it_does_not_change_undefined() -> None:
    # and eax, eax leaves AF undefined, shl al, 9 CF and OF as well; rol eax, 1 defines those two
    assert run("d2e0 d1c0", rcx=9).undefined.rflags == AF


BITS = {"bt": ("a3", 4), "bts": ("ab", 5), "btr": ("b3", 6), "btc": ("bb", 7)}


def changed(name: str, value: int, bit: int) -> int:
    """The value after the bit test did its work."""
    return {"bt": value, "bts": value | 1 << bit, "btr": value & ~(1 << bit), "btc": value ^ 1 << bit}[name]


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("name", BITS)
@FEW
@given(value=values, offset=values)
def test_bit_tests_of_a_register_take_the_offset_modulo_the_width(name: str, bits: int, value: int, offset: int) -> None:
    prefix, mask = {16: "66", 32: "", 64: "48"}[bits], (1 << bits) - 1

    ended = execute(f"{prefix}0f{BITS[name][0]}c8", {"rax": value, "rcx": offset, "rflags": 2 | ZF})

    bit, low = offset % bits, value & mask
    result = changed(name, low, bit)
    unchanged = name == "bt"
    assert ended.register("rax") == (value if unchanged else result if bits >= 32 else value & ~mask | result)
    assert ended.register("rflags") & (CF | ZF) == ZF | (low >> bit & 1)
    assert ended.undefined.rflags == OF | SF | AF | PF


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("offset", [0, 5, 15, 16, 31, 63, 64, 1000, -1, -16, -64, -1000])
def test_a_register_offset_reaches_memory_beyond_the_operand(name: str, bits: int, offset: int) -> None:
    base = KERNEL_DATA + 0x400
    prefix = {16: "66", 32: "", 64: "48"}[bits]
    byte, bit = base + (offset >> 3), offset & 7

    cleared = run(f"{prefix}0f{BITS[name][0]}08", rax=base, rcx=offset & 0xFFFF_FFFF_FFFF_FFFF)
    set_before = run(f"{prefix}0f{BITS[name][0]}08", rax=base, rcx=offset & 0xFFFF_FFFF_FFFF_FFFF, memory={byte: bytes([1 << bit])})

    assert [cleared.register("rflags") & CF, set_before.register("rflags") & CF] == [0, 1]
    if name in ("bts", "btc"):
        assert peek(cleared, byte, 1) == 1 << bit
    if name in ("btr", "btc"):
        assert peek(set_before, byte, 1) == 0


@pytest.mark.parametrize("name", BITS)
def test_an_immediate_offset_stays_within_the_operand(name: str) -> None:
    # bt dword [rax], 33 tests bit 1
    ended = run(f"0fba{BITS[name][1] << 3:02x}21", rax=KERNEL_DATA, memory={KERNEL_DATA: b"\x02"})

    assert ended.register("rflags") & CF == 1


def test_bt_only_reads() -> None:
    assert outcome(run("0fa308", rax=0xFFFF_8880_0003_0000)) == "ended"
    assert outcome(run("0fab08", rax=0xFFFF_8880_0003_0000)) == "#PF(0x3)"


def test_zf_after_a_bit_test_is_undefined_on_amd() -> None:
    assert execute("0fa3c8", {}, profile="amd").undefined.rflags == OF | SF | AF | PF | ZF
