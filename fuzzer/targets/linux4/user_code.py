"""The user code of `linux4`: what provokes an event, ordinary instructions to be interrupted, and a place where a handler sends it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fuzzer.targets import layout
from fuzzer.targets.layout import Region
from fuzzer.targets.linux4.image import SYSENTER_LANDING

END = bytes([0xCD, layout.END_VECTOR])


@dataclass(frozen=True, slots=True)
class UserCode:
    """Pieces of code by name, each in a slot of its own, so that all scenarios share the same pages.

    A slot holds the piece, then `ordinary` instructions, then the end of the run; the run ends at RESUME too.
    """

    region: Region
    slot: int
    ordinary: str
    pieces: Mapping[str, str]

    RESUME = 0x40

    def start(self, name: str) -> int:
        """Where the piece begins."""
        return self.region.start + self.slot * list(self.pieces).index(name)

    def resume(self, name: str) -> int:
        """Where a handler sends it on."""
        return self.start(name) + self.RESUME

    def text(self) -> bytes:
        """The slots one after the other."""
        bodies = (bytes.fromhex(code + self.ordinary) + END for code in self.pieces.values())
        return b"".join((body.ljust(self.RESUME, b"\xcc") + END).ljust(self.slot, b"\xcc") for body in bodies)


NEGATIVE_GS = 0xFFFF_8880_000F_0000
"""A user GS base that the sign test takes for the kernel's."""

LONG = UserCode(
    layout.USER_CODE,
    0x100,
    "b801000000"  # mov eax, 1
    "488d5c24f8"  # lea rbx, [rsp-8]
    "53"  # push rbx
    "59"  # pop rcx
    "4801d8"  # add rax, rbx
    "65488b142500000000"  # mov rdx, gs:[0]
    "9c"  # pushfq
    "58",  # pop rax
    {
        "ordinary": "",
        "divide": "b801000000 31d2 31c9 f7f1",  # mov eax, 1; xor edx, edx; xor ecx, ecx; div ecx
        "syscall": "0f05",
        "int3": "cc",
        "bad selector": "b8f8ff0000 8ec0",  # mov eax, 0xfff8; mov es, eax
        "unmapped": "31c0 488b00",  # xor eax, eax; mov rax, [rax]
        "ud2": "0f0b",
        "absent selector": "b86b000000 8ec0",  # mov eax, 0x6b; mov es, eax
        "push": "50",  # push rax
        "misaligned": "488b4424f9",  # mov rax, [rsp-7]
        "int 4": "cd04",
        "fwait": "9b",
        "int 1": "cd01",
        "icebp": "f1",
        "read dr0": "0f21c0",  # mov rax, dr0
        "write dr7": "0f23f8",  # mov dr7, rax
        "int 0x80": "cd80",
        "wrgsbase": f"48b8{NEGATIVE_GS.to_bytes(8, 'little').hex()} f3480faed8 0f05 cd{layout.END_VECTOR:02x}",  # wrgsbase; syscall; end
    },
)

SHORT = UserCode(
    layout.COMPAT_CODE,
    0x80,
    "b801000000"  # mov eax, 1
    "8d5c24f8"  # lea ebx, [esp-8]
    "53"  # push ebx
    "59"  # pop ecx
    "01d8"  # add eax, ebx
    "9c"  # pushfd
    "58",  # pop eax
    {
        "ordinary": "",
        "divide": "b801000000 31d2 31c9 f7f1",  # mov eax, 1; xor edx, edx; xor ecx, ecx; div ecx
        "int3": "cc",
        "into": "b8ffffff7f 83c001 ce",  # mov eax, 0x7fffffff; add eax, 1; into
        "bound": f"b805000000 6205{layout.USER_DATA.start.to_bytes(4, 'little').hex()}",  # mov eax, 5; bound eax, [two zeros]
        "ud2": "0f0b",
        "absent selector": "b86b000000 8ec0",  # mov eax, 0x6b; mov es, eax
        "bad selector": "b8f8ff0000 8ec0",  # mov eax, 0xfff8; mov es, eax
        "unmapped": "31c0 8b00",  # xor eax, eax; mov eax, [eax]
        "misaligned": "8b4424f9",  # mov eax, [esp-7]
        "int 0x80": "cd80",
        "sysenter": "89e5 0f34",  # mov ebp, esp; sysenter
        "syscall": "0f05",
    },
)

LAST_BYTES = layout.USER_EDGE.end - 2
"""SYSCALL stands in the last two bytes of user space: its return address is not canonical."""


def user_pages() -> dict[Region, bytes]:
    """What each region of user code begins with, or is filled with."""
    landing = SYSENTER_LANDING - layout.COMPAT_CODE.start
    edge = bytes.fromhex("0f05")
    return {
        layout.USER_CODE: LONG.text(),
        layout.COMPAT_CODE: SHORT.text().ljust(landing, b"\xcc") + END,
        layout.USER_EDGE: edge.rjust(layout.USER_EDGE.size, b"\xcc"),
    }
