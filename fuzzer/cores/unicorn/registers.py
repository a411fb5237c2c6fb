"""All registers of a case in one call: preallocated buffers for Unicorn's batch interface."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from unicorn import x86_const as const

from reference.image import REGISTERS

MSRS: Final = {
    "kernel_gs_base": 0xC000_0102,
    "efer": 0xC000_0080,
    "star": 0xC000_0081,
    "lstar": 0xC000_0082,
    "cstar": 0xC000_0083,
    "sfmask": 0xC000_0084,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
}
_TABLES: Final = {"gdtr": const.UC_X86_REG_GDTR, "idtr": const.UC_X86_REG_IDTR}
_SYSTEM_SEGMENTS: Final = {"ldtr": const.UC_X86_REG_LDTR, "tr": const.UC_X86_REG_TR}
_SLOT: Final = 24
"""Bytes for one register: enough for the structure of a descriptor-table register."""


def _number(name: str) -> int:
    """Unicorn's number for a register of REGISTERS."""
    if name in MSRS:
        return int(const.UC_X86_REG_MSR)
    if name in _SYSTEM_SEGMENTS:
        return int(_SYSTEM_SEGMENTS[name])
    if name[:4] in _TABLES:
        return int(_TABLES[name[:4]])
    return int(getattr(const, f"UC_X86_REG_{name.upper()}"))


def _value_at(name: str) -> int:
    """Where inside its slot a register's value stands: MSRs come after their number, tables after a selector."""
    if name in MSRS or name.endswith("tr_base"):
        return 8
    return 16 if name.endswith("tr_limit") else 0


class Batch:
    """A fixed list of registers, read at once; `call` is the library's batch function."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._count = len(names)
        self._numbers = (ctypes.c_int * len(names))(*map(_number, names))
        self._buffer = bytearray(_SLOT * len(names))
        self._memory = (ctypes.c_char * len(self._buffer)).from_buffer(self._buffer)
        start = ctypes.addressof(self._memory)
        self._pointers = (ctypes.c_void_p * len(names))(*(start + _SLOT * n for n in range(len(names))))
        self._layout = struct.Struct("<" + "".join(_slot_format(name) for name in names))
        for n, name in enumerate(names):
            if name in MSRS:
                struct.pack_into("<I", self._buffer, _SLOT * n, MSRS[name])
        self._template = bytes(self._buffer)

    def read(self, call: Any, engine: Any) -> tuple[int, ...]:
        """The registers' values in the order of `names`."""
        self._buffer[:] = self._template
        call(engine, self._numbers, self._pointers, self._count)
        return self._layout.unpack(self._buffer)


class Writer:
    """A fixed list of registers, written at once; not for tables, whose halves belong together.

    Their values stand side by side, those of MSRs behind the others and each behind its number.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        plain = [name for name in names if name not in MSRS]
        numbered = [name for name in names if name in MSRS]
        self._count = len(names)
        self._numbers = (ctypes.c_int * len(names))(*map(_number, names))
        self._pick, self._pick_numbered = itemgetter(*plain), itemgetter(*numbered)
        self._msrs = [MSRS[name] for name in numbered]
        self._layout = struct.Struct(f"<{len(plain) + 2 * len(numbered)}Q")
        self._buffer = ctypes.create_string_buffer(self._layout.size)
        start = ctypes.addressof(self._buffer)
        places = {name: start + 8 * n for n, name in enumerate(plain)}
        places |= {name: start + 8 * len(plain) + 16 * n for n, name in enumerate(numbered)}
        self._pointers = (ctypes.c_void_p * len(names))(*(places[name] for name in names))

    def write(self, call: Any, engine: Any, values: Mapping[str, int]) -> None:
        """Write every register of `names`, in their order, from a mapping that has them all."""
        numbered = chain.from_iterable(zip(self._msrs, self._pick_numbered(values), strict=True))
        self._layout.pack_into(self._buffer, 0, *self._pick(values), *numbered)
        call(engine, self._numbers, self._pointers, self._count)


def _slot_format(name: str) -> str:
    """How a slot of 24 bytes unpacks to the one value that counts."""
    if name in _SYSTEM_SEGMENTS:
        return "H22x"
    return {0: "Q16x", 8: "8xQ8x", 16: "16xI4x"}[_value_at(name)]


ALL: Final = REGISTERS
WRITTEN: Final = tuple(
    name
    for name in (
        "cr0",
        "cr4",
        "efer",
        *(name for name in REGISTERS if name not in ("cr0", "cr3", "cr4", "efer", "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr", "dr7")),
        "dr7",
        "cr3",
    )
    if name[:4] not in _TABLES
)
"""In the order that the engine needs: paging bits first, CR3 last because writing it empties the TLB."""
