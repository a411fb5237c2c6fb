"""The adapter's own way into guest memory, for what it does in the processor's place: pushing frames, reading tables."""

from __future__ import annotations

import mmap
import struct
from typing import Final

from reference.image import PAGE

_FRAME: Final = 0x000F_FFFF_FFFF_F000
_NX: Final = 1 << 63
_PRESENT, _WRITABLE, _USER, _ACCESSED, _DIRTY, _LARGE = 1, 2, 4, 32, 64, 128
_CR0_WP, _CR4_SMAP, _EFER_NXE = 1 << 16, 1 << 21, 1 << 11


_ENTRY: Final = struct.Struct("<Q")
_SHIFTS: Final = (39, 30, 21, 12)


class GuestFaultError(Exception):
    """An access of the adapter's that the processor would have answered with an exception."""

    def __init__(self, vector: int, error_code: int, address: int | None = None) -> None:
        super().__init__(vector, error_code, address)
        self.vector = vector
        self.error_code = error_code
        self.address = address


class OutsideError(Exception):
    """Page tables lead to physical memory that the machine does not have."""


class Walks:
    """What walks have led to, kept from run to run as long as the paging structures in `tables` are those of the image.

    A walk that marks one of them changes a page, so the next image finds it changed. No target maps its page tables.
    """

    def __init__(self, tables: frozenset[int]) -> None:
        self.tables = tables
        self._found: dict[tuple[int, ...], tuple[dict[int, int], dict[int, int]]] = {}

    def under(self, rules: tuple[int, ...]) -> tuple[dict[int, int], dict[int, int]]:
        """(physical pages that can be read, that can be written), by linear page number, when these registers decide."""
        return self._found.setdefault(rules, ({}, {}))


class Walker:
    """Supervisor accesses to a machine's memory by linear address, as system structures are accessed: SMAP always holds."""

    def __init__(self, ram: mmap.mmap, address_bits: int, walks: Walks) -> None:
        self._ram = ram
        self._reserved = _FRAME & ~((1 << address_bits) - 1)
        self._walks = walks
        self._rules: tuple[int, ...] = ()
        self._known: tuple[dict[int, int], dict[int, int]] = {}, {}
        self.cr0 = self.cr3 = self.cr4 = self.efer = 0

    def set_rules(self, cr0: int, cr3: int, cr4: int, efer: int) -> None:
        """Take the registers that decide about accesses."""
        rules = cr0, cr3, cr4, efer
        if rules != self._rules:
            self._rules = rules
            self.cr0, self.cr3, self.cr4, self.efer = rules
            self._known = self._walks.under(rules)

    def physical(self, linear: int, write: bool, mark: bool = True) -> int:
        """The physical address of one byte, walked for once a page."""
        page = self._known[write].get(linear >> 12)
        return self._walk(linear, write, mark) if page is None else page | linear & 0xFFF

    def _walk(self, linear: int, write: bool, mark: bool) -> int:
        """The physical address of one byte, or GuestFaultError with the #PF it meets; `mark` sets the accessed and dirty flags."""
        if not -(1 << 47) <= _signed(linear) < 1 << 47:
            raise GuestFaultError(13, 0)
        mode = 2 if write else 0
        ram, size = self._ram, len(self._ram)
        table, everywhere = self.cr3 & _FRAME, _USER | _WRITABLE | _ACCESSED
        places = []
        for shift in _SHIFTS:
            place = table + 8 * (linear >> shift & 511)
            if place + 8 > size:
                raise OutsideError
            (entry,) = _ENTRY.unpack_from(ram, place)
            if not entry & _PRESENT:
                raise GuestFaultError(14, mode, linear)
            if entry & self._reserved or (entry & _NX and not self.efer & _EFER_NXE):
                raise GuestFaultError(14, mode | 9, linear)
            if shift != 12 and entry & _LARGE:
                raise OutsideError
            places.append((place, entry))
            everywhere &= entry
            table = entry & _FRAME
        if everywhere & _USER and self.cr4 & _CR4_SMAP:
            raise GuestFaultError(14, mode | 1, linear)
        if write and self.cr0 & _CR0_WP and not everywhere & _WRITABLE:
            raise GuestFaultError(14, mode | 1, linear)
        if mark and not (everywhere & _ACCESSED and (entry & _DIRTY or not write)):
            for place, entry in places:
                _ENTRY.pack_into(ram, place, entry | _ACCESSED)
            _ENTRY.pack_into(ram, place, entry | _ACCESSED | (_DIRTY if write else 0))  # the leaf
        if table >= size:
            raise OutsideError
        if all(place >> 12 in self._walks.tables for place, _ in places):
            self._known[write][linear >> 12] = table
        return table | linear & 0xFFF

    def read(self, linear: int, size: int) -> int:
        """An unsigned little-endian number; it may cross a page."""
        page, offset = self._known[False].get(linear >> 12), linear & 0xFFF
        if page is not None and offset + size <= PAGE:
            return int.from_bytes(self._ram[page | offset : (page | offset) + size], "little")
        return int.from_bytes(b"".join(self._ram[start : start + length] for start, length in self._spans(linear, size, False)), "little")

    def check_write(self, linear: int, size: int) -> None:
        """Raise what a write would raise."""
        if linear >> 12 not in self._known[True] or (linear & 0xFFF) + size > PAGE:
            self._spans(linear, size, True)

    def write(self, linear: int, data: bytes) -> None:
        """Store bytes; they may cross a page."""
        page, offset = self._known[True].get(linear >> 12), linear & 0xFFF
        if page is not None and offset + len(data) <= PAGE:
            self._ram[page | offset : (page | offset) + len(data)] = data
            return
        for start, length in self._spans(linear, len(data), True):
            self._ram[start : start + length] = data[:length]
            data = data[length:]

    def _spans(self, linear: int, size: int, write: bool) -> list[tuple[int, int]]:
        first = min(size, PAGE - (linear & 0xFFF))
        spans = [(self.physical(linear, write), first)]
        if first < size:
            spans.append((self.physical(linear + first & (1 << 64) - 1, write), size - first))
        return spans


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
