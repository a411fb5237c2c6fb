"""The file that this process and its child share: where everything lies in it. Numbers only; child.S reads the same ones."""

from __future__ import annotations

from typing import Final

from fuzzer.targets import layout
from fuzzer.targets.tables import FRAMES
from reference.image import PAGE

TEXT: Final = 0x5B00_0000_0000
"""Where the child's text stands. System calls are allowed to whoever runs above the same upper half of an address."""
SHARED: Final = 0x5A00_0000_0000
"""Where the child has the whole file. Cases reach neither but by chance."""

REGIONS: Final = (layout.USER_CODE, layout.USER_DATA, layout.USER_STACK, layout.USER_READONLY, layout.COMPAT_CODE)
"""What user mode has and Linux can map: the page below the end of the lower half is not among it."""
USER_PLACES: Final = tuple((region, number) for region in REGIONS for number in range(region.pages))
ADDRESSES: Final = tuple(region.start + number * PAGE for region, number in USER_PLACES)
USER_FRAMES: Final = tuple(FRAMES[region.name] + number for region, number in USER_PLACES)
PAGES: Final = len(ADDRESSES)

READ, WRITE, EXECUTE = 1, 2, 4
PROTECTIONS: Final = tuple(READ | (WRITE if region.writable else 0) | (EXECUTE if region.executable else 0) for region, _ in USER_PLACES)

SLOT_COUNT: Final = 250
SIGNAL_STACK_SIZE: Final = 0x1_0000

LENT_PAGE: Final = USER_PLACES.index((layout.USER_DATA, 0))
"""The writable page that the child uses while it starts."""

_CONTROL: Final = {
    "CONTROL_NUMBER": 0x00,
    "CONTROL_COUNT": 0x08,
    "CONTROL_SLOT": 0x10,
    "CONTROL_CPU_LIMIT": 0x18,
    "CONTROL_CPU_RIGHTS": 0x20,
    "CONTROL_DESCRIPTORS": 0x28,
    "CONTROL_GDT_DESCRIPTORS": 0x30,
    "CONTROL_SCRATCH": 0x40,
    "CONTROL_PROTECTIONS": 0x80,
    "CONTROL_CHANGED": 0xC0,
    "CONTROL_ADDRESSES": 0x100,
    "CONTROL_USER_DESC": 0x200,
}
_IN: Final = {
    "IN_GPR": 0x00,
    "IN_RIP": 0x80,
    "IN_CS": 0x88,
    "IN_FLAGS": 0x90,
    "IN_RSP": 0x98,
    "IN_SS": 0xA0,
    "IN_DS": 0xA8,
    "IN_ES": 0xB0,
    "IN_FS": 0xB8,
    "IN_GS": 0xC0,
    "IN_FS_BASE": 0xC8,
    "IN_GS_BASE": 0xD0,
    "IN_PAGE_MASK": 0xD8,
    "IN_PROTECTIONS": 0xE0,
}
_OUT: Final = {
    "OUT_GPR": 0x200,
    "OUT_RIP": 0x280,
    "OUT_FLAGS": 0x288,
    "OUT_ES": 0x290,
    "OUT_CS": 0x298,
    "OUT_SS": 0x2A0,
    "OUT_DS": 0x2A8,
    "OUT_FS": 0x2B0,
    "OUT_GS": 0x2B8,
    "OUT_FS_BASE": 0x2C0,
    "OUT_GS_BASE": 0x2C8,
    "OUT_DIRTY_MASK": 0x2D0,
    "OUT_SIGNAL": 0x2D8,
    "OUT_VECTOR": 0x2E0,
    "OUT_ERROR": 0x2E8,
    "OUT_CR2": 0x2F0,
}
"""Registers in the order of `image.REGISTERS` from GPRS to GS, so that a slot's are read at once."""

USER_PAGES: Final = PAGE
TEMPLATE_PAGES: Final = USER_PAGES + PAGES * PAGE
SIGNAL_STACK: Final = TEMPLATE_PAGES + PAGES * PAGE
SLOTS: Final = SIGNAL_STACK + SIGNAL_STACK_SIZE
SLOT_IN_PAGES: Final = PAGE
SLOT_OUT_PAGES: Final = SLOT_IN_PAGES + PAGES * PAGE
SLOT_SIZE: Final = SLOT_OUT_PAGES + PAGES * PAGE
SHARED_SIZE: Final = SLOTS + SLOT_COUNT * SLOT_SIZE
CPU_SELECTOR: Final = 0x7B
"""The segment that Linux keeps for the number of the processor: its limit is the number."""

NUMBERS: Final = {
    **_CONTROL,
    **_IN,
    **_OUT,
    "TEXT": TEXT,
    "SHARED": SHARED,
    "SHARED_SIZE": SHARED_SIZE,
    "PAGES": PAGES,
    "LENT_PAGE": LENT_PAGE,
    "USER_PAGES": USER_PAGES,
    "TEMPLATE_PAGES": TEMPLATE_PAGES,
    "SIGNAL_STACK": SIGNAL_STACK,
    "SIGNAL_STACK_SIZE": SIGNAL_STACK_SIZE,
    "SLOTS": SLOTS,
    "SLOT_SIZE": SLOT_SIZE,
    "SLOT_IN_PAGES": SLOT_IN_PAGES,
    "SLOT_OUT_PAGES": SLOT_OUT_PAGES,
    "CPU_SELECTOR": CPU_SELECTOR,
}
"""By the names that child.S has for them."""
