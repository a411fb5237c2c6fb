"""Looking into a machine from outside, for reports: bytes by linear address, through its page tables, changing nothing."""

from __future__ import annotations

from collections.abc import Mapping

from reference.image import PAGE, REGISTER_INDEX, Image, Step

_ADDRESS = 0x000F_FFFF_FFFF_F000


def physical_of(image: Image, memory: Mapping[int, bytes], cr3: int, linear: int) -> int | None:
    """The physical address behind `linear`, or None where nothing is mapped; `memory` are the pages changed so far."""
    table = cr3 & _ADDRESS
    for shift in (39, 30, 21, 12):
        page = memory.get(table >> 12) or image.pages.get(table >> 12)
        if page is None:
            return None
        place = (linear >> shift & 0x1FF) * 8
        entry = int.from_bytes(page[place : place + 8], "little")
        if not entry & 1:
            return None
        table = entry & _ADDRESS
    return table | linear & 0xFFF if table >> 12 in image.pages else None


def linear_bytes(image: Image, memory: Mapping[int, bytes], cr3: int, linear: int, size: int) -> bytes:
    """Up to `size` bytes from `linear`, fewer where the mapping ends."""
    data = b""
    while len(data) < size:
        physical = physical_of(image, memory, cr3, linear + len(data) & 0xFFFF_FFFF_FFFF_FFFF)
        if physical is None:
            break
        page = memory.get(physical >> 12) or image.pages[physical >> 12]
        offset = physical & 0xFFF
        data += page[offset : min(PAGE, offset + size - len(data))]
    return data


def code_at(image: Image, step: Step, size: int) -> tuple[bytes, int]:
    """Up to `size` bytes of code at RIP, and whether they are 64- or 32-bit code: by the L flag of the descriptor that CS names."""
    registers = {name: step.registers[REGISTER_INDEX[name]] for name in ("rip", "cr3", "cs", "gdtr_base", "ldtr")}
    code = linear_bytes(image, step.memory, registers["cr3"], registers["rip"], size)
    descriptor = _descriptor(image, step, registers, registers["cs"])
    return code, 64 if descriptor is None or descriptor >> 53 & 1 else 32


def _descriptor(image: Image, step: Step, registers: Mapping[str, int], selector: int) -> int | None:
    """The 8 bytes that a selector names, None where they cannot be read: tables of the kernel may be out of a user CR3's reach."""
    table = registers["gdtr_base"]
    if selector & 4:
        low, high = (_qword(image, step, registers["cr3"], table + (registers["ldtr"] & 0xFFF8) + place) for place in (0, 8))
        if low is None or high is None:
            return None
        table = low >> 16 & 0xFF_FFFF | (low >> 56) << 24 | (high & 0xFFFF_FFFF) << 32
    return _qword(image, step, registers["cr3"], table + (selector & 0xFFF8))


def _qword(image: Image, step: Step, cr3: int, linear: int) -> int | None:
    data = linear_bytes(image, step.memory, cr3, linear, 8)
    return int.from_bytes(data, "little") if len(data) == 8 else None
