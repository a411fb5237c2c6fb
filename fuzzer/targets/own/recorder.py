"""Recorders for C handlers that the entry code calls and does not bring: made here, as bytes, at fixed addresses.

They follow the C ABI (pt_regs in RDI, error code in RSI; RBX, RBP and R12 to R15 survive), append a record to the log, change the frame
where the control page says so, and never use GS, which may be what is wrong. A record is eight words (handler, error code, RSP, address
of pt_regs, RFLAGS, GS.base, KERNEL_GS_BASE, CR3) and then pt_regs.
"""

from __future__ import annotations

import struct
from typing import Final

from fuzzer.targets import layout
from fuzzer.targets.target import Patch, patch

END: Final = bytes([0xCD, layout.END_VECTOR])
END_GATE: Final = layout.KERNEL_CODE.start
"""Where the gate of the end of the run leads; no instruction runs there."""
RETURN_TO_END: Final = layout.KERNEL_CODE.start + 0x10
"""What a kernel function returns to when it was what was to be interrupted."""
INTERRUPTED: Final = layout.KERNEL_CODE.start + 0x20
"""Kernel code to be interrupted."""
_RECORD: Final = layout.KERNEL_CODE.start + 0x80
_STUBS: Final = layout.KERNEL_CODE.start + 0x180
_STUB: Final = 16
MAX_HANDLERS: Final = (layout.KERNEL_CODE.end - _STUBS) // _STUB - 1
TEXT: Final = (_RECORD, layout.KERNEL_CODE.end)
"""Where the recorders stand."""

_RECORD_SIZE: Final = 0x100
MAX_WORDS: Final = _RECORD_SIZE // 8 - 8
"""Words of pt_regs that a record has room for, behind its own eight."""

# The control page: the bytes ever logged, the handler that changes its frame, how many changes, and (offset, value) of each.
_CHANGE_HANDLER: Final = 0x08

ORDINARY_KERNEL_CODE: Final = (
    "b834120000"  # mov eax, 0x1234
    "50"  # push rax
    "fa"  # cli
    "65488b142500000000"  # mov rdx, gs:[0x0]
    "9c"  # pushfq
    "5b"  # pop rbx
    "fb"  # sti
    "59"  # pop rcx
)

_RECORDER: Final = (
    "39c0"  # cmp eax, eax
    "9c"  # pushfq
    "415b"  # pop r11
    f"49ba{struct.pack('<Q', layout.CONTROL.start).hex()}"  # mov r10, CONTROL
    "4d8b0a"  # mov r9, [r10]
    "498d9100010000"  # lea rdx, [r9+0x100]
    "498712"  # xchg [r10], rdx
    "4939d1"  # cmp r9, rdx
    "740d"  # je +0xd
    "4989d1"  # mov r9, rdx
    "4881c200010000"  # add rdx, 0x100
    "498912"  # mov [r10], rdx
    f"4181e1{struct.pack('<I', layout.LOG.size - 1).hex()}"  # and r9d, LOG_MASK
    f"49b8{struct.pack('<Q', layout.LOG.start).hex()}"  # mov r8, LOG
    "4d01c8"  # add r8, r9
    "498900"  # mov [r8], rax: the handler
    "49897008"  # mov [r8+0x8], rsi: the error code
    "49896010"  # mov [r8+0x10], rsp
    "49897818"  # mov [r8+0x18], rdi: pt_regs
    "4d895820"  # mov [r8+0x20], r11: RFLAGS
    "b9010100c0"  # mov ecx, IA32_GS_BASE
    "0f32"  # rdmsr
    "41894028"  # mov [r8+0x28], eax
    "4189502c"  # mov [r8+0x2c], edx
    "ffc1"  # inc ecx: IA32_KERNEL_GS_BASE
    "0f32"  # rdmsr
    "41894030"  # mov [r8+0x30], eax
    "41895034"  # mov [r8+0x34], edx
    "0f20d8"  # mov rax, cr3
    "49894038"  # mov [r8+0x38], rax
    "4889fe"  # mov rsi, rdi
    "498d7840"  # lea rdi, [r8+0x40]
    "b9{words}"  # mov ecx, the words of pt_regs
    "f348a5"  # rep movsq
    "498b4a10"  # mov rcx, [r10+0x10]: changes to make
    "4885c9"  # test rcx, rcx
    "742a"  # je +0x2a
    "498b5208"  # mov rdx, [r10+0x8]: the handler that makes them
    "493b10"  # cmp rdx, [r8]
    "7521"  # jne +0x21
    "49c7421000000000"  # mov qword ptr [r10+0x10], 0
    "498b7818"  # mov rdi, [r8+0x18]
    "498b4220"  # mov rax, [r10+0x20]
    "498b5228"  # mov rdx, [r10+0x28]
    "48891407"  # mov [rdi+rax], rdx
    "4983c210"  # add r10, 0x10
    "48ffc9"  # dec rcx
    "75eb"  # jne -0x15
    "c3"  # ret
)


def stub_address(number: int) -> int:
    """Where the recorder of handler `number`, counted from 1, begins."""
    return _STUBS + _STUB * number


def is_stub(address: int, number: int) -> bool:
    """Whether the recorder of handler `number` begins there."""
    return address == stub_address(number)


def kernel_code(handlers: int, words: int) -> bytes:
    """The contents of the region KERNEL_CODE: the end, code to be interrupted, and a recorder for each of `handlers` handlers."""
    page = bytearray(b"\xcc" * layout.KERNEL_CODE.size)
    _put(page, END_GATE, b"\xf4")
    _put(page, RETURN_TO_END, END)
    _put(page, INTERRUPTED, bytes.fromhex(ORDINARY_KERNEL_CODE) + END)
    _put(page, _RECORD, bytes.fromhex(_RECORDER.replace("{words}", struct.pack("<I", words).hex())))
    for number in range(1, handlers + 1):
        address = stub_address(number)
        _put(page, address, b"\xb8" + struct.pack("<I", number) + jump(address + 5, _RECORD))
    return bytes(page)


def change(handler: int, offset: int, value: int) -> Patch:
    """The control page that makes recorder `handler` write one word of the pt_regs it is given, once."""
    data = struct.pack("<QQQQQ", handler, 1, 0, offset, value)
    return patch(layout.CONTROL, _CHANGE_HANDLER, data)


JUMP_SIZE: Final = 5


def jump(source: int, destination: int) -> bytes:
    """JMP rel32 at `source` (SDM Vol. 2A, JMP)."""
    return b"\xe9" + struct.pack("<i", destination - source - JUMP_SIZE)


def _put(page: bytearray, address: int, data: bytes) -> None:
    offset = address - layout.KERNEL_CODE.start
    page[offset : offset + len(data)] = data
