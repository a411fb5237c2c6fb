"""The hidden parts of segment registers, as the engine keeps them, from an image's descriptor tables."""

from __future__ import annotations

import struct
from functools import lru_cache

from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.walk import OutsideError
from reference.image import PAGE, SEGMENTS, Image

_ADDRESS = 0x000F_FFFF_FFFF_F000


def descriptor_caches(image: Image) -> tuple[bytes, int]:
    """(ES to GS, LDTR, TR, GDTR and IDTR side by side, as loading each register would have left them; the engine's mode flags)."""
    registers = image.registers
    selectors = tuple(registers[name] for name in (*SEGMENTS, "ldtr", "tr"))
    bases = registers["fs_base"], registers["gs_base"]
    tables = tuple(registers[name] for name in ("gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit"))
    return _caches(_gdt(image), selectors, bases, tables)


@lru_cache(maxsize=512)
def _caches(gdt: bytes, selectors: tuple[int, ...], bases: tuple[int, int], tables: tuple[int, ...]) -> tuple[bytes, int]:
    descriptors = [_descriptor(gdt, selector) for selector in selectors[: len(SEGMENTS)]]
    es, cs, ss, ds = descriptors[:4]
    # 64-bit code and its stack have no base, and the engine would add one.
    flat = 0 if cs & blob.DESCRIPTOR_L else None
    bases_of = (None, flat, flat, None, *bases)
    caches = [blob.segment_cache(*each) for each in zip(selectors, descriptors, bases_of, strict=False)]
    for selector in selectors[len(SEGMENTS) :]:
        low, high = _descriptor(gdt, selector), _descriptor(gdt, selector + 8)
        base = low >> 16 & 0xFF_FFFF | (low >> 56) << 24 | (high & 0xFFFF_FFFF) << 32
        caches.append(blob.segment_cache(selector, low, base))
    for base, limit in (tables[:2], tables[2:]):
        caches.append(struct.pack("<IIQII", 0, 0, base, limit, 0))
    return b"".join(caches), blob.mode_hflags(cs, ss, based=any(map(blob.segment_base, (es, ss, ds))))


def _descriptor(gdt: bytes, selector: int) -> int:
    """The 8 bytes that a selector names in the GDT; a null selector's cache is empty."""
    offset = selector & 0xFFF8
    return int.from_bytes(gdt[offset : offset + 8], "little") if selector & 0xFFFC else 0


def _gdt(image: Image) -> bytes:
    """The page that GDTR points to."""
    table = image.registers["cr3"]
    for shift in (39, 30, 21, 12):
        place = (image.registers["gdtr_base"] >> shift & 511) * 8
        table = int.from_bytes(_page(image, table // PAGE)[place : place + 8], "little") & _ADDRESS
    return _page(image, table // PAGE)


def _page(image: Image, frame: int) -> bytes:
    page = image.pages.get(frame)
    if page is None:
        raise OutsideError
    return page
