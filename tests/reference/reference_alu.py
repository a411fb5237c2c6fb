"""For tests of arithmetic: many runs of one instruction, and flags worked out from the integers themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from reference_machine import image, outcome

from reference.image import Image, Observation
from reference.run import run

CF, PF, AF, ZF, SF, OF = 0x1, 0x4, 0x10, 0x40, 0x80, 0x800
ALL = CF | PF | AF | ZF | SF | OF


def execute(code: str, registers: Mapping[str, int], profile: str = "intel") -> Observation:
    """Run one instruction from the registers given; it must not fault."""
    base = _base(code, profile)
    ended = run(replace(base, registers={**base.registers, **registers}))
    assert outcome(ended) == "ended", outcome(ended)
    return ended


@cache
def _base(code: str, profile: str) -> Image:
    return image(code, profile=profile)


def signed(value: int, bits: int) -> int:
    """The two's complement number that `value` stands for."""
    return value - (1 << bits) if value >= 1 << bits - 1 else value


def result_flags(result: int, bits: int) -> int:
    """SF, ZF and PF of a result of `bits` bits."""
    text = format(result, f"0{bits}b")
    return SF * (text[0] == "1") | ZF * ("1" not in text) | PF * (text[-8:].count("1") in (0, 2, 4, 6, 8))


def sum_flags(a: int, b: int, carry: int, bits: int) -> tuple[int, int]:
    """(result, flags) of `a + b + carry`."""
    total = a + b + carry
    result = total % (1 << bits)
    flags = result_flags(result, bits)
    flags |= CF * (total != result)
    flags |= AF * (a % 16 + b % 16 + carry > 15)
    flags |= OF * (signed(a, bits) + signed(b, bits) + carry != signed(result, bits))
    return result, flags


def difference_flags(a: int, b: int, borrow: int, bits: int) -> tuple[int, int]:
    """(result, flags) of `a - b - borrow`."""
    result = (a - b - borrow) % (1 << bits)
    flags = result_flags(result, bits)
    flags |= CF * (a < b + borrow)
    flags |= AF * (a % 16 < b % 16 + borrow)
    flags |= OF * (signed(a, bits) - signed(b, bits) - borrow != signed(result, bits))
    return result, flags
