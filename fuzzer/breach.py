"""From a broken promise of the contract to the signature of its cause: the promise, and the instruction at which it broke."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

from iced_x86 import Decoder

from fuzzer.signature import Signature
from fuzzer.view import linear_bytes
from reference.image import Image
from reference.instructions import NAMES
from reference.linux.contract import PROMISES, Violation
from reference.linux.entry_code import EntryCode

CORE: Final = "spec"
"""The specification ran the entry code: no engine has a part in it."""

AREAS: Final = {
    "gs": ("gs-base", "gs-restored", "swapgs-once-each-way", "segments-kept"),
    "stack": (
        "stack-of-its-own",
        "handler-stack",
        "user-stack-untouched",
        "interrupted-stack",
        "ist-restored",
        "pt-regs",
        "orig-rax",
        "return-frame",
    ),
    "flags": ("direction-flag", "access-control"),
}
"""What a promise is about; the others are about control."""
_AREA_OF: Final = {name: area for area, names in AREAS.items() for name in names}
_BY_NAME: Final = {promise.name: promise for promise in PROMISES}
_FAR: Final = 0x1000
"""A label further away than this says nothing about an address."""


def of_violation(violation: Violation, image: Image, code: EntryCode) -> Signature:
    """The signature of a violation: equal for one promise broken at one place, whatever the values."""
    promise = _BY_NAME[violation.promise]
    return Signature(
        core=CORE,
        profile=image.profile.name,
        kind="contract",
        area=_AREA_OF.get(promise.name, "control"),
        cause=f"{instruction_at(image, violation.rip, code.kernel_cr3)} at {place(violation.rip, code.symbols)}",
        rule=f"{promise.text} ({promise.source})",
        fields=(),
        expected=promise.name,
        observed="broken",
        by="entry code",
    )


def place(address: int, symbols: Mapping[str, int]) -> str:
    """The nearest label at or before an address, with the distance to it; the address where there is none."""
    ordered = sorted((value, name) for name, value in symbols.items())
    index = bisect_right(ordered, (address, "\U0010ffff")) - 1
    if index < 0 or address - ordered[index][0] >= _FAR:
        return "user code" if address >> 63 == 0 else f"{address:#x}"
    distance = address - ordered[index][0]
    return f"{ordered[index][1]}+{distance:#x}" if distance else ordered[index][1]


def instruction_at(image: Image, address: int, cr3: int) -> str:
    """The name of the instruction that the image has there, seen through the page tables at `cr3`."""
    code = linear_bytes(image, {}, cr3, address, 15)
    return NAMES[Decoder(64, code).decode().mnemonic] if code else "fetch"
