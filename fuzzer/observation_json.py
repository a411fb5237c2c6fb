"""An observation as JSON: hexadecimal strings by name, for the command line and the database."""

from __future__ import annotations

import struct
from typing import Any

from fuzzer.compare import Difference, place_of
from reference.faults import exception_name
from reference.image import PAGE, REGISTERS, Delivery, Image, Observation

_QWORDS = struct.Struct("<512Q")


def to_json(observation: Observation, image: Image) -> dict[str, Any]:
    """`end`, `registers`, `fault`, `memory`, `deliveries`, `detail` and `retired` of an observation of `image`."""
    faults = [entry for entry in observation.deliveries if entry.vector < 32 and entry.vector != 2]
    return {
        "end": observation.end.value,
        "registers": {name: f"{value:#x}" for name, value in zip(REGISTERS, observation.registers, strict=False)},
        "fault": exception_name(faults[0].vector, faults[0].error_code) if faults else None,
        "memory": _changed_words(observation, image),
        "deliveries": [_delivery(entry) for entry in observation.deliveries],
        "detail": observation.detail,
        "retired": observation.retired,
    }


def _changed_words(observation: Observation, image: Image) -> dict[str, str]:
    """Every 8-byte word that is not as it was in the image, by region and offset."""
    words: dict[str, str] = {}
    for frame, page in sorted(observation.memory.items()):
        before = _QWORDS.unpack(image.pages[frame])
        for index, (old, new) in enumerate(zip(before, _QWORDS.unpack(page), strict=True)):
            if old != new:
                words[place_of(frame * PAGE + 8 * index)] = f"{new:#x}"
    return words


def _delivery(entry: Delivery) -> dict[str, Any]:
    return {
        "boundary": entry.boundary,
        "vector": entry.vector,
        "error_code": None if entry.error_code is None else f"{entry.error_code:#x}",
        "rip": f"{entry.rip:#x}",
        "cpl": entry.cpl,
    }


def differences_to_json(differences: tuple[Difference, ...]) -> list[dict[str, str]]:
    """Differences with their numbers in hexadecimal."""
    return [{"field": each.field, "expected": _text(each.expected), "observed": _text(each.observed)} for each in differences]


def _text(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:#x}"
