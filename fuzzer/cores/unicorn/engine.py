"""One Unicorn instance: memory of ours, state in and out, and running for an exact number of instructions."""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3 import unicorn as binding

from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.registers import ALL, WRITTEN, Batch, Writer
from reference.image import PAGE

ELSEWHERE: Final = 1
"""The engine's `until` for a run that begins at address 0; otherwise it is 0, the one value that the engine does not look up,
which would disturb CR2 and the exception in flight."""
DEBUG_REGISTERS: Final = (x86_const.UC_X86_REG_DR0, x86_const.UC_X86_REG_DR1, x86_const.UC_X86_REG_DR2, x86_const.UC_X86_REG_DR3)
SYSCALL, SYSENTER = "syscall", "sysenter"
TRACE_LIMIT: Final = 1 << 14

_RECORD_ADDRESS: Final = {
    # mov rax, [rcx]; mov [rax], rsi; add qword [rcx], 8; ret: append the second argument to a list whose end the fourth points to.
    "x86_64": bytes.fromhex("488b01488930488301 08c3".replace(" ", "")),
    # ldr x4, [x3]; str x1, [x4], #8; str x4, [x3]; ret
    "aarch64": bytes.fromhex("640040f9 818400f8 640000f9 c0035fd6".replace(" ", "")),
}
"""A code hook too small for Python: called with (engine, address, size, user data) before every instruction."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the engine stopped: an exception, a hooked instruction, HLT, an error of its own, or the count (`vector` None)."""

    addresses: tuple[int, ...]
    """Of the instructions begun, in order; an iteration of REP is one."""
    vector: int | None = None
    error_code: int = 0
    software: bool = False
    """The exception came from INT n or INT3: RIP is behind the instruction."""
    instruction: str = ""
    dr6: int = 0
    """DR6 as it was when `instruction` was met."""
    error: str = ""


class Engine:
    """A Unicorn engine with one CPU model, whose RAM is a buffer of ours from physical address 0."""

    def __init__(self, model: int, frames: int) -> None:
        self.frames = frames
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.uc.ctl_set_cpu_model(model)
        self.uc.ctl_set_tcg_buffer_size(8 << 20)
        self.library: Any = binding.uclib
        self.handle = self.uc._uch
        self.ram = mmap.mmap(-1, frames * PAGE)
        self._ram_view = (ctypes.c_char * len(self.ram)).from_buffer(self.ram)
        self.uc.mem_map_ptr(0, len(self.ram), uc_const.UC_PROT_ALL, ctypes.addressof(self._ram_view))
        self._batch = Batch(ALL)
        self._writer = Writer(WRITTEN)
        self._word = ctypes.c_uint64()
        self._word_pointer = ctypes.pointer(self._word)
        self._context = self.uc.context_save()
        self._layout = self._find_layout()
        self._state = (ctypes.c_char * self._layout.size).from_address(_address(self._context))
        self._caught: dict[str, Any] = {}
        self._behind: int | None = None
        """RIP behind an INT 6, for which the engine stops before it."""
        self._install_hooks()

    def _find_layout(self) -> blob.Layout:
        uc = self.uc
        uc.reg_write(x86_const.UC_X86_REG_RAX, blob.SENTINELS["rax"])
        uc.reg_write(x86_const.UC_X86_REG_RIP, blob.SENTINELS["rip"])
        uc.reg_write(x86_const.UC_X86_REG_FS_BASE, blob.SENTINELS["fs_base"])
        uc.reg_write(x86_const.UC_X86_REG_CR2, blob.SENTINELS["cr2"])
        uc.reg_write(x86_const.UC_X86_REG_DR6, blob.SENTINELS["dr6"])
        uc.reg_write(x86_const.UC_X86_REG_DR0, blob.SENTINELS["dr0"])
        uc.reg_write(x86_const.UC_X86_REG_GDTR, (0, blob.SENTINELS["gdtr"], 0xFFFF, 0))
        uc.context_update(self._context)
        layout = blob.find(ctypes.string_at(_address(self._context), self._context.size))
        if layout is None:
            raise CoreError(f"unicorn {unicorn.__version__}: its CPU state is not laid out as in 2.1.4; install unicorn==2.1.4")
        return layout

    def _install_hooks(self) -> None:
        code = _RECORD_ADDRESS.get(platform.machine())
        if code is None:
            raise CoreError(f"unicorn: no address recorder for {platform.machine()} hosts; run on x86_64 or aarch64")
        self._recorder = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._recorder.write(code)
        self._addresses = (ctypes.c_uint64 * TRACE_LIMIT)()
        self._cursor = ctypes.c_uint64(0)
        function = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._recorder)))
        hook = ctypes.c_size_t()
        self.library.uc_hook_add(
            self.handle,
            ctypes.byref(hook),
            uc_const.UC_HOOK_CODE,
            function,
            ctypes.c_void_p(ctypes.addressof(self._cursor)),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        self.uc.hook_add(uc_const.UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(uc_const.UC_HOOK_INSN_INVALID, self._on_invalid)
        self.uc.hook_add(uc_const.UC_HOOK_INSN, self._on_syscall, aux1=x86_const.UC_X86_INS_SYSCALL)
        self.uc.hook_add(uc_const.UC_HOOK_INSN, self._on_sysenter, aux1=x86_const.UC_X86_INS_SYSENTER)

    def _on_exception(self, uc: unicorn.Uc, vector: int, data: object) -> None:
        if self._caught:
            # A trap behind an instruction that does nothing here: the adapter does the instruction, and judges the trap.
            uc.emu_stop()
            return
        self.save()
        env = self._layout.env
        error_code, software = struct.unpack_from("<ii", self._state, env + blob.ERROR_CODE)
        self._caught = {"vector": vector, "error_code": error_code & 0xFFFF_FFFF, "software": bool(software)}
        uc.emu_stop()

    def _on_invalid(self, uc: unicorn.Uc, data: object) -> bool:
        """Any #UD, and INT 6 too, which the engine's own state tells apart."""
        self.save()
        software, following = struct.unpack_from("<iQ", self._state, self._layout.env + blob.ERROR_CODE + 4)
        self._caught = {"vector": 6, "software": bool(software)}
        self._behind = following if software else None
        return False

    def _on_syscall(self, uc: unicorn.Uc, data: object) -> None:
        self._caught = {"instruction": SYSCALL, "dr6": self.read(x86_const.UC_X86_REG_DR6)}
        uc.emu_stop()

    def _on_sysenter(self, uc: unicorn.Uc, data: object) -> None:
        self._caught = {"instruction": SYSENTER, "dr6": self.read(x86_const.UC_X86_REG_DR6)}
        uc.emu_stop()

    # State

    def save(self) -> None:
        """Copy the engine's CPU state to where `peek` and `poke` see it."""
        self.library.uc_context_save(self.handle, self._context.context)

    def restore(self) -> None:
        """Make the copied state the engine's, with no exception in flight."""
        struct.pack_into("<i", self._state, self._layout.env + blob.OLD_EXCEPTION, -1)
        self.library.uc_context_restore(self.handle, self._context.context)

    def state(self) -> bytes:
        """The copied state as bytes: a template for `load_state`."""
        return bytes(self._state)

    def load_state(self, state: bytes) -> None:
        """Replace the copied state."""
        ctypes.memmove(self._state, state, len(state))

    def peek(self, form: str, offset: int) -> Any:
        """Unpack from the copied state at an offset of `blob`."""
        return struct.unpack_from(form, self._state, self._layout.env + offset)

    def poke(self, form: str, offset: int, *values: Any) -> None:
        """Pack into the copied state at an offset of `blob`."""
        struct.pack_into(form, self._state, self._layout.env + offset, *values)

    def read(self, register: int) -> int:
        """One register of 64 bits by Unicorn's number."""
        self._word.value = 0
        self.library.uc_reg_read(self.handle, register, self._word_pointer)
        return self._word.value

    def write(self, register: int, value: int) -> None:
        """Write one register of 64 bits by Unicorn's number."""
        self._word.value = value
        self.library.uc_reg_write(self.handle, register, self._word_pointer)

    def read_all(self) -> tuple[int, ...]:
        """Every register in the order of `image.REGISTERS`."""
        return self._batch.read(self.library.uc_reg_read_batch, self.handle)

    def write_all(self, values: Mapping[str, int]) -> None:
        """Write what Unicorn's interface can write; segments and system registers with hidden parts are not among it."""
        self._writer.write(self.library.uc_reg_write_batch, self.handle, values)

    def forget_code(self) -> None:
        """Drop all translated code: the host changed a page that instructions are fetched from."""
        self.uc.ctl_flush_tb()

    # Running

    def run(self, rip: int, count: int) -> Stop:
        """Begin at most `count` instructions at `rip`, less if something stops the engine."""
        start = ctypes.addressof(self._addresses)
        self._cursor.value = start
        self._caught = {}
        self._behind = None
        count = min(count, TRACE_LIMIT - 8)
        status = self._start(rip, count, until=0 if rip else ELSEWHERE)
        begun = (self._cursor.value - start) // 8
        if not self._caught and not status and begun < count and self.read(x86_const.UC_X86_REG_RIP) == 0 and rip:
            status = self._start(0, count - begun, until=ELSEWHERE)
            begun = (self._cursor.value - start) // 8
        if self._behind is not None:
            self.write(x86_const.UC_X86_REG_RIP, self._behind)
        addresses = struct.unpack_from(f"<{begun}Q", self._addresses)
        if self._caught:
            return Stop(addresses, **self._caught)
        if status:
            return Stop(addresses, error=str(unicorn.UcError(status)))
        return Stop(addresses)

    def _start(self, rip: int, count: int, until: int) -> int:
        status: int = self.library.uc_emu_start(self.handle, rip, until, 0, count)
        return status


def _address(context: Any) -> int:
    return int(ctypes.cast(context.context, ctypes.c_void_p).value or 0)
