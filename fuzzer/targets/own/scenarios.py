"""The ways into somebody's own entry code: user code that calls, faults and is interrupted, and kernel code that is interrupted."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fuzzer.targets import layout
from fuzzer.targets.own import recorder
from fuzzer.targets.own.manifest import FIRST_INTERRUPT, HandlerEntry, Manifest
from fuzzer.targets.own.placement import patch_at
from fuzzer.targets.own.recorder import END
from fuzzer.targets.target import Patch, Scenario
from reference.bits import AC, FIXED, IF, TF
from reference.linux.entry_code import Stack

ORDINARY: Final = bytes.fromhex(
    "b801000000"  # mov eax, 1
    "488d5c24f8"  # lea rbx, [rsp-8]
    "53"  # push rbx
    "59"  # pop rcx
    "4801d8"  # add rax, rbx
    "65488b142500000000"  # mov rdx, gs:[0]
    "9c"  # pushfq
    "58"  # pop rax
)
_RESUME: Final = 0x40
_SLOT: Final = 0x80
_QUIET: Final = FIXED | IF


@dataclass(frozen=True, slots=True)
class Provoked:
    """User code that raises an exception; a fault comes back to its instruction until the handler sends it on."""

    name: str
    summary: str
    code: str
    change: str = "rip"
    """The field of pt_regs that the handler changes; nothing for a trap."""
    registers: Mapping[str, int] | None = None


PROVOKED: Final = {
    0: Provoked("divide-error", "DIV by 0", "b801000000 31d2 31c9 f7f1"),
    1: Provoked("debug", "single step (RFLAGS.TF)", "", "rflags", {"rflags": _QUIET | TF}),
    3: Provoked("int3", "INT3", "cc", ""),
    6: Provoked("invalid-opcode", "UD2", "0f0b"),
    11: Provoked("segment-not-present", "a segment that is not present into ES", "b86b000000 8ec0"),
    12: Provoked("stack-segment", "a push below a non-canonical RSP", "50", "rip", {"rsp": 0x8000_0000_1000}),
    13: Provoked("general-protection", "a selector past the GDT into ES", "b8f8ff0000 8ec0"),
    14: Provoked("page-fault", "a load from a page that is not mapped", "31c0 488b00"),
    17: Provoked("alignment-check", "a misaligned load", "488b4424f9", "rip", {"rflags": _QUIET | AC}),
}
"""By vector."""

_SYSCALL: Final = "0f05"
_SYSENTER: Final = "4889e1 488d1502000000 0f34"
"""RCX and RDX hold what SYSEXIT returns to (SDM Vol. 2B, SYSEXIT)."""


@dataclass(frozen=True, slots=True)
class Ways:
    """Scenarios, the user code they share, and what was left out, each with the reason."""

    scenarios: tuple[Scenario, ...]
    user_code: bytes
    left_out: tuple[str, ...]


def ways_in(manifest: Manifest, numbers: Mapping[str, int], thread: Stack, kernel_code: Mapping[str, int]) -> Ways:
    """Every way in that the manifest opens; `numbers` are the handlers that are recorders, by name."""
    user = _UserCode()
    scenarios = [user.scenario("user-code", "user code, to be interrupted", "")]
    scenarios.append(Scenario("kernel-code", "kernel code with interrupts on, off and on again", 0, _kernel(thread, recorder.INTERRUPTED)))
    scenarios += [_function(name, address, thread) for name, address in kernel_code.items()]
    scenarios += [user.scenario(name, summary, code) for name, summary, code in _calls(manifest)]
    left_out = []
    for gate in sorted(manifest.gates, key=lambda each: each.vector):
        what = PROVOKED.get(gate.vector)
        if what is None:
            continue
        reason = _cannot_go_on(what, manifest, manifest.handler(gate.vector), numbers)
        if reason:
            left_out.append(f"{what.name}-from-user: {reason}")
        else:
            scenarios.append(_exception(user, what, manifest, gate.vector, numbers))
    return Ways(tuple(scenarios), user.pages(), tuple(left_out))


def _calls(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    entries = {register for register, _ in manifest.entries}
    if "lstar" in entries:
        yield "system-call-from-user", "SYSCALL", _SYSCALL
    if "sysenter_eip" in entries:
        yield "sysenter-from-user", "SYSENTER from 64-bit code", _SYSENTER
    for gate in manifest.gates:
        if gate.vector >= FIRST_INTERRUPT and gate.dpl == 3:
            yield f"int-{gate.vector:#x}-from-user", f"INT {gate.vector:#x}", f"cd{gate.vector:02x}"


def _cannot_go_on(what: Provoked, manifest: Manifest, handler: HandlerEntry | None, numbers: Mapping[str, int]) -> str:
    if not what.change:
        return ""
    if handler is None:
        return 'no handler of origin "exception" has its vector'
    if handler.name not in numbers:
        return f"{handler.name} is your own code, and only a recorder can send the fault on; set recorder = true"
    return ""


def _exception(user: _UserCode, what: Provoked, manifest: Manifest, vector: int, numbers: Mapping[str, int]) -> Scenario:
    handler = manifest.handler(vector)
    memory: tuple[Patch, ...] = ()
    if what.change:
        assert handler is not None
        value = _QUIET if what.change == "rflags" else user.address(what.code) + _RESUME
        memory = (recorder.change(numbers[handler.name], 8 * manifest.pt_regs.index(what.change), value),)
    return user.scenario(f"{what.name}-from-user", what.summary, what.code, memory, what.registers or {})


def _kernel(thread: Stack, rip: int) -> dict[str, int]:
    return {"rip": rip, "rsp": thread.end - 0x100}


def _function(name: str, address: int, thread: Stack) -> Scenario:
    """A kernel function, called from nowhere: it returns to the end of the run."""
    registers = _kernel(thread, address)
    come_back = patch_at(registers["rsp"], struct.pack("<Q", recorder.RETURN_TO_END))
    return Scenario(f"kernel-{name.replace('_', '-')}", f"kernel code: {name}", 0, registers, (come_back,))


class _UserCode:
    """Pieces of user code, each in a slot of its own, so that all scenarios share the same pages."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def address(self, code: str) -> int:
        """Where the piece that begins with `code` stands."""
        if code not in self._pieces:
            self._pieces.append(code)
        return layout.USER_CODE.start + _SLOT * self._pieces.index(code)

    def scenario(self, name: str, summary: str, code: str, memory: tuple[Patch, ...] = (), registers: Mapping[str, int] = {}) -> Scenario:
        """A scenario that begins with the piece."""
        return Scenario(name, summary, 3, {"rip": self.address(code), **registers}, memory)

    def pages(self) -> bytes:
        """All pieces: each goes on with ordinary instructions and ends the run, there and where a handler resumes."""
        bodies = (bytes.fromhex(code) + ORDINARY + END for code in self._pieces)
        return b"".join((body.ljust(_RESUME, b"\xcc") + END).ljust(_SLOT, b"\xcc") for body in bodies)
