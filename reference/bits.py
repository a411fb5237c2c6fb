"""Bit widths, canonical addresses, the flags of RFLAGS and the bits of DR6 and DR7."""

from __future__ import annotations

from typing import Final

MASK8: Final = 0xFF
MASK16: Final = 0xFFFF
MASK32: Final = 0xFFFF_FFFF
MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF

CF: Final = 1 << 0
PF: Final = 1 << 2
AF: Final = 1 << 4
ZF: Final = 1 << 6
SF: Final = 1 << 7
TF: Final = 1 << 8
IF: Final = 1 << 9
DF: Final = 1 << 10
OF: Final = 1 << 11
IOPL: Final = 3 << 12
NT: Final = 1 << 14
RF: Final = 1 << 16
VM: Final = 1 << 17
AC: Final = 1 << 18
VIF: Final = 1 << 19
VIP: Final = 1 << 20
ID: Final = 1 << 21

FIXED: Final = 1 << 1
"""Bit 1 of RFLAGS is always 1 (SDM Vol. 1, 3.4.3)."""

ARITHMETIC: Final = CF | PF | AF | ZF | SF | OF
DEFINED: Final = 0x3F_7FD5 | FIXED
"""Every bit of RFLAGS that is not reserved as 0 (SDM Vol. 1, Figure 3-8)."""

FLAG_NAMES: Final = {
    "CF": CF,
    "PF": PF,
    "AF": AF,
    "ZF": ZF,
    "SF": SF,
    "TF": TF,
    "IF": IF,
    "DF": DF,
    "OF": OF,
    "IOPL": IOPL,
    "NT": NT,
    "RF": RF,
    "VM": VM,
    "AC": AC,
    "VIF": VIF,
    "VIP": VIP,
    "ID": ID,
}

PARITY: Final = tuple(PF if value.bit_count() % 2 == 0 else 0 for value in range(256))
"""PF for the low byte of a result: set when it has an even number of 1 bits (SDM Vol. 1, 3.4.3.1)."""

BD: Final = 1 << 13
BS: Final = 1 << 14
DR6_FIXED: Final = 0xFFFF_0FF0
"""Bits of DR6 that read as 1 (SDM Vol. 3B, Figure 18-1; no RTM, no bus-lock detection in these profiles)."""
DR6_WRITABLE: Final = 0x0000_E00F
DR7_FIXED: Final = 1 << 10
DR7_WRITABLE: Final = 0xFFFF_23FF

CANONICAL_LOW_END: Final = 0x0000_8000_0000_0000
CANONICAL_HIGH_START: Final = 0xFFFF_8000_0000_0000


def canonical(address: int) -> bool:
    """Whether bits 63:47 are all equal: a valid linear address with 4-level paging (SDM Vol. 1, 3.3.7.1)."""
    return address < CANONICAL_LOW_END or address >= CANONICAL_HIGH_START


def sign_extend(value: int, bits: int) -> int:
    """`value`, a `bits`-wide number, extended by its sign to 64 bits."""
    sign = 1 << (bits - 1)
    return ((value ^ sign) - sign) & MASK64
