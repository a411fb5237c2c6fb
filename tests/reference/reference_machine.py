"""Machines for tests of the specification: `run("0f 05", cpl=3, efer=0)` names only what the test is about.

Every vector has an interrupt gate of DPL 0 to a stub of its own that ends the run, so a fault shows as the first delivery.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from reference.faults import vector_name
from reference.image import PAGE, REGISTERS, End, Event, EventKind, Image, Observation
from reference.profiles import PROFILES, Profile
from reference.run import run as run_image

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 63

USER_CODE = 0x40_0000
USER_DATA = 0x41_0000
USER_STACK = 0x42_0000
USER_READONLY = 0x43_0000
LAST_USER_PAGE = 0x7FFF_FFFF_F000
FIRST_KERNEL_PAGE = 0xFFFF_8000_0000_0000
KERNEL_CODE = 0xFFFF_FFFF_8100_0000
HANDLERS = 0xFFFF_FFFF_8110_0000
KERNEL_DATA = 0xFFFF_8880_0001_0000
KERNEL_STACK = 0xFFFF_8880_0002_0000
KERNEL_READONLY = 0xFFFF_8880_0003_0000
GDT = 0xFFFF_8880_0004_0000
LDT = 0xFFFF_8880_0005_0000
IDT = 0xFFFF_8880_0006_0000
TSS = 0xFFFF_8880_0007_0000
IST_STACKS = 0xFFFF_8880_0008_0000
UNMAPPED = 0xFFFF_8880_000F_0000
NOT_CANONICAL = 0x0000_8000_0000_0000

STACK_TOP = 0x1000
"""RSP starts in the middle of two stack pages."""
KERNEL_RSP, USER_RSP = KERNEL_STACK + STACK_TOP, USER_STACK + STACK_TOP
RSP0 = KERNEL_STACK + 0x1800
HANDLER_SIZE = 32

_DATA = PRESENT | WRITABLE | ACCESSED | DIRTY | NX
_TEXT = PRESENT | ACCESSED
_REGIONS = (
    (USER_CODE, 2, _TEXT | USER),
    (USER_DATA, 2, _DATA | USER),
    (USER_STACK, 2, _DATA | USER),
    (USER_READONLY, 1, (_DATA | USER) & ~WRITABLE),
    (LAST_USER_PAGE, 1, _TEXT | WRITABLE | DIRTY | USER),
    (FIRST_KERNEL_PAGE, 1, _DATA),
    (KERNEL_CODE, 2, _TEXT),
    (HANDLERS, 2, _TEXT),
    (KERNEL_DATA, 2, _DATA),
    (KERNEL_STACK, 2, _DATA),
    (KERNEL_READONLY, 1, _DATA & ~WRITABLE),
    (GDT, 1, _DATA),
    (LDT, 1, _DATA),
    (IDT, 1, _DATA),
    (TSS, 1, _DATA),
    (IST_STACKS, 8, _DATA),
)
_FIRST_FRAME = 0x100
_TABLES = 0x200
FRAMES = {}
"""Physical page number of every mapped linear page number."""
_FLAGS = {}
for _linear, _pages, _flags in _REGIONS:
    for _page in range(_linear >> 12, (_linear >> 12) + _pages):
        _FLAGS[_page] = _flags
        FRAMES[_page] = _FIRST_FRAME + len(FRAMES)

KERNEL32_CS, KERNEL_CS, KERNEL_DS = 0x08, 0x10, 0x18
USER32_CS, USER_DS, USER_CS = 0x23, 0x2B, 0x33
TSS_SELECTOR, LDT_SELECTOR, SPARE = 0x40, 0x50, 0x60
GDT_LIMIT, LDT_LIMIT, IDT_LIMIT, TSS_LIMIT = 0xFF, 0x3F, 0xFFF, 0x67

CODE, DATA, AVAILABLE_TSS, BUSY_TSS, LDT_TYPE = 0xB, 0x3, 0x9, 0xB, 0x2
CODE_NOT_ACCESSED, CONFORMING, EXECUTE_ONLY, READ_ONLY_DATA, DATA_NOT_ACCESSED = 0xA, 0xF, 0x9, 0x1, 0x2


def descriptor(
    kind: int, dpl: int = 0, *, present: bool = True, long: bool = False, big: bool = False, base: int = 0, limit: int = 0xF_FFFF,
    granular: bool = True, segment: bool = True,
) -> int:  # fmt: skip
    """The 8 bytes of a segment descriptor, put together from the fields of SDM Vol. 3A, Figure 3-8."""
    flags = kind | segment << 4 | dpl << 5 | present << 7 | long << 13 | big << 14 | granular << 15
    low = limit & 0xFFFF | (base & 0xFF_FFFF) << 16
    return low | flags << 40 | (limit >> 16) << 48 | (base >> 24 & 0xFF) << 56


def system(kind: int, base: int, limit: int, dpl: int = 0, *, present: bool = True, upper_type: int = 0) -> bytes:
    """The 16 bytes of an LDT or TSS descriptor (SDM Vol. 3A, Figure 7-4)."""
    low = descriptor(kind, dpl, present=present, base=base & 0xFFFF_FFFF, limit=limit, granular=False, segment=False)
    return struct.pack("<QQ", low, base >> 32 | upper_type << 40)


def gate(
    offset: int, selector: int = KERNEL_CS, *, kind: int = 0xE, dpl: int = 0, present: bool = True, ist: int = 0, segment: bool = False
) -> bytes:  # fmt: skip
    """The 16 bytes of an IDT gate (SDM Vol. 3A, Figure 7-8)."""
    flags = ist | kind << 8 | segment << 12 | dpl << 13 | present << 15
    low = offset & 0xFFFF | selector << 16 | flags << 32 | (offset >> 16 & 0xFFFF) << 48
    return struct.pack("<QQ", low, offset >> 32)


def handler(vector: int) -> int:
    """Where the handler of a vector starts."""
    return HANDLERS + vector * HANDLER_SIZE


def q(*words: int) -> bytes:
    """The words as they lie in memory."""
    return b"".join(struct.pack("<Q", word & 0xFFFF_FFFF_FFFF_FFFF) for word in words)


def image(
    code: str = "", cpl: int = 0, *, profile: str | Profile = "intel", events: tuple[Event, ...] = (), limit: int = 100,
    gdt: Mapping[int, int | bytes] | None = None, ldt: Mapping[int, int | bytes] | None = None,
    idt: Mapping[int, bytes] | None = None, handlers: Mapping[int, str] | None = None, tss: Mapping[int, bytes] | None = None,
    memory: Mapping[int, bytes] | None = None, paging: Mapping[tuple[int, int], tuple[int, int]] | None = None, **registers: int,
) -> Image:  # fmt: skip
    """A machine about to run `code` (hex) at `cpl`, followed by the ending interrupt.

    `gdt` and `ldt` are descriptors by selector, `idt` gates by vector, `tss` bytes by offset, `memory` bytes by linear address.
    `paging` is (bits to set, bits to clear) by (level, linear address); level 1 is the page-table entry, 4 the PML4 entry.
    """
    pages = {frame: bytearray(PAGE) for frame in FRAMES.values()}
    state = _registers(cpl, registers)
    program = bytes.fromhex(code)
    _poke(pages, state["rip"], program)
    for n, byte in enumerate(b"\xcd\xf1", state["rip"] + len(program)):
        if n >> 12 in FRAMES:
            _poke(pages, n, bytes([byte]))
    for vector in range(256):
        _poke(pages, handler(vector), bytes.fromhex((handlers or {}).get(vector, "cdf1")))
        default = gate(handler(vector), dpl=3 if vector == 0xF1 else 0)
        _poke(pages, IDT + 16 * vector, (idt or {}).get(vector, default))
    for selector, entry in {**_GDT, **(gdt or {})}.items():
        _poke(pages, GDT + (selector & ~7), entry if isinstance(entry, bytes) else q(entry))
    for selector, entry in (ldt or {}).items():
        _poke(pages, LDT + (selector & ~7), entry if isinstance(entry, bytes) else q(entry))
    ists = [IST_STACKS + n * PAGE + 0x800 for n in range(1, 8)]
    _poke(pages, TSS + 4, q(RSP0, RSP0, RSP0) + bytes(8) + q(*ists))
    for offset, data in (tss or {}).items():
        _poke(pages, TSS + offset, data)
    for linear, data in (memory or {}).items():
        _poke(pages, linear, data)
    pages.update(_page_tables(paging or {}))
    chosen = profile if isinstance(profile, Profile) else PROFILES[profile]
    return Image(chosen, state, {frame: bytes(page) for frame, page in pages.items()}, events, limit=limit)


_GDT: dict[int, int | bytes] = {
    KERNEL32_CS: descriptor(CODE, big=True),
    KERNEL_CS: descriptor(CODE, long=True),
    KERNEL_DS: descriptor(DATA, big=True),
    USER32_CS: descriptor(CODE, 3, big=True),
    USER_DS: descriptor(DATA, 3, big=True),
    USER_CS: descriptor(CODE, 3, long=True),
    TSS_SELECTOR: system(BUSY_TSS, TSS, TSS_LIMIT),
    LDT_SELECTOR: system(LDT_TYPE, LDT, LDT_LIMIT),
}


def gdt_bytes() -> bytes:
    """The default GDT, to be put elsewhere."""
    table = bytearray(SPARE)
    for selector, entry in _GDT.items():
        data = entry if isinstance(entry, bytes) else q(entry)
        table[selector & ~7 : (selector & ~7) + len(data)] = data
    return bytes(table)


def interrupt(boundary: int, vector: int = 0x72) -> Event:
    """An external interrupt that becomes pending after so many instructions."""
    return Event(boundary, EventKind.INTERRUPT, vector)


def nmi(boundary: int) -> Event:
    """A non-maskable interrupt."""
    return Event(boundary, EventKind.NMI)


def machine_check(boundary: int) -> Event:
    """A machine check."""
    return Event(boundary, EventKind.MACHINE_CHECK, 18)


def _registers(cpl: int, chosen: Mapping[str, int]) -> dict[str, int]:
    unknown = set(chosen) - set(REGISTERS)
    assert not unknown, f"no such registers: {unknown}"
    kernel = cpl < 3
    return {
        **dict.fromkeys(REGISTERS, 0),
        "rsp": KERNEL_RSP if kernel else USER_RSP,
        "rip": KERNEL_CODE if kernel else USER_CODE,
        "rflags": 0x2,
        "cs": KERNEL_CS if kernel else USER_CS,
        "ss": KERNEL_DS if kernel else USER_DS,
        "ldtr": LDT_SELECTOR,
        "tr": TSS_SELECTOR,
        "cr0": 0x8005_0033,
        "cr3": _TABLES << 12,
        "cr4": 1 << 5 | 1 << 6,
        "efer": 0xD01,
        "dr6": 0xFFFF_0FF0,
        "dr7": 0x400,
        "star": 0x0023_0010_0000_0000,
        "lstar": handler(0x80),
        "cstar": handler(0x81),
        "sysenter_cs": 0x10,
        "sysenter_esp": KERNEL_RSP,
        "sysenter_eip": handler(0x82),
        "gdtr_base": GDT,
        "gdtr_limit": GDT_LIMIT,
        "idtr_base": IDT,
        "idtr_limit": IDT_LIMIT,
        **chosen,
    }


def _poke(pages: dict[int, bytearray], linear: int, data: bytes) -> None:
    for n, byte in enumerate(data):
        pages[FRAMES[linear + n >> 12]][linear + n & 0xFFF] = byte


def _page_tables(changes: Mapping[tuple[int, int], tuple[int, int]]) -> dict[int, bytearray]:
    """Four levels, everything allowed above the last one; `changes` are applied to single entries."""
    tables = {_TABLES: bytearray(PAGE)}
    places: dict[tuple[int, int], tuple[int, int]] = {}
    for page, frame in FRAMES.items():
        table = _TABLES
        for level in (4, 3, 2, 1):
            prefix = page >> 9 * (level - 1)
            offset = (prefix & 0x1FF) * 8
            if (level, prefix) not in places:
                places[level, prefix] = (table, offset)
                below = frame if level == 1 else _TABLES + len(tables)
                if level > 1:
                    tables[below] = bytearray(PAGE)
                flags = _FLAGS[page] if level == 1 else PRESENT | WRITABLE | USER | ACCESSED
                struct.pack_into("<Q", tables[table], offset, below << 12 | flags)
            table = struct.unpack_from("<Q", tables[table], offset)[0] >> 12 & 0xF_FFFF_FFFF
    for (level, linear), (add, remove) in changes.items():
        table, offset = places[level, linear >> 12 + 9 * (level - 1)]
        entry = struct.unpack_from("<Q", tables[table], offset)[0]
        struct.pack_into("<Q", tables[table], offset, entry & ~remove | add)
    return tables


def run(code: str = "", cpl: int = 0, **parts: object) -> Observation:
    """Run a machine that `image` builds."""
    return run_image(image(code, cpl, **parts))  # type: ignore[arg-type]


def outcome(observation: Observation) -> str:
    """`ended`, `halted` ..., or the first thing that was delivered: `#GP(0x10)`, `#UD`, `vector 0x72`."""
    if observation.end is End.NOT_MODELLED:
        return f"not modelled: {observation.detail}"
    if not observation.deliveries:
        return observation.end.value
    first = observation.deliveries[0]
    return vector_name(first.vector) + ("" if first.error_code is None else f"({first.error_code:#x})")


def outcomes(observation: Observation) -> list[str]:
    """Everything that was delivered, in order, by name."""
    return [vector_name(delivery.vector) for delivery in observation.deliveries]


def peek(observation: Observation, linear: int, size: int = 8) -> int:
    """Bytes in memory when the run had ended; only in a page that changed."""
    page = observation.memory[FRAMES[linear >> 12]]
    return int.from_bytes(page[linear & 0xFFF : (linear & 0xFFF) + size], "little")


class Frame(NamedTuple):
    """What was pushed on the way to a handler."""

    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int


def frame(observation: Observation, error_code: bool = False) -> Frame:
    """The frame at RSP of a run that ended in a handler's stub."""
    bottom = observation.register("rsp") + 8 * error_code
    return Frame(*(peek(observation, bottom + 8 * n) for n in range(5)))
