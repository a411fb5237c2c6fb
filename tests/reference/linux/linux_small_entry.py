"""Entry code small enough to be read here, for tests of the contract: five entries, each in named pieces that a test can replace.

They were assembled once by GNU `as`; offsets in pt_regs are r15 0x00 .. rdi 0x70, orig_rax 0x78, rip 0x80, cs 0x88, rflags 0x90, rsp 0x98.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace

from reference_machine import (
    IST_STACKS,
    KERNEL_CODE,
    KERNEL_DATA,
    KERNEL_STACK,
    PAGE,
    RSP0,
    USER_CODE,
    gate,
    image,
    q,
)

from reference.image import Image, Observation
from reference.linux.contract import Violation, judge
from reference.linux.entry_code import EntryCode, Handler, Origin, Stack, StackKind

PIECES = {
    # int3: paranoid, on IST3. r14 keeps CR3, of which bit 3 stands for "the user's page tables".
    "int3.orig_rax": "6aff",
    "int3.cld": "fc",
    "int3.clac": "0f01ca",
    "int3.save": "5756525150415041514152415353554154415541564157",
    "int3.ask": "b9010100c00f32bb0100000085d27805",
    "int3.swapgs_in": "0f01f8",
    "int3.swapped": "31db",
    "int3.cr3_in": "410f20de4c89f04883e0f70f22d8",
    "int3.arguments": "4889e731f6",
    "int3.call": "e8b6070000",
    "int3.cr3_out": "410f22de",
    "int3.test": "85db7503",
    "int3.swapgs_out": "0f01f8",
    "int3.restore": "415f415e415d415c5d5b415b415a4159415858595a5e5f",
    "int3.drop": "4883c408",
    "int3.iret": "48cf",
    # #GP: the cheap test; takes a fault of the IRET at call.iret for one of user mode.
    "gp.cld": "fc",
    "gp.clac": "0f01ca",
    "gp.save": "5756525150415041514152415353554154415541564157",
    "gp.bad_return": "488d054002000048398424800000007518488bb42498000000488dbc2480000000b905000000f348a5",
    "gp.test": "f6842488000000037403",
    "gp.swapgs_in": "0f01f8",
    "gp.arguments": "4889e7488b74247848c7442478ffffffff",
    "gp.call": "e819070000",
    "gp.test_out": "f6842488000000037403",
    "gp.swapgs_out": "0f01f8",
    "gp.restore": "415f415e415d415c5d5b415b415a4159415858595a5e5f4883c408",
    "gp.iret": "48cf",
    # An interrupt, vector 0x72.
    "irq.orig_rax": "6a8d",
    "irq.cld": "fc",
    "irq.clac": "0f01ca",
    "irq.save": "5756525150415041514152415353554154415541564157",
    "irq.test": "f6842488000000037403",
    "irq.swapgs_in": "0f01f8",
    "irq.arguments": "4889e7",
    "irq.call": "e88e060000",
    "irq.test_out": "f6842488000000037403",
    "irq.swapgs_out": "0f01f8",
    "irq.restore": "415f415e415d415c5d5b415b415a4159415858595a5e5f4883c408",
    "irq.iret": "48cf",
    # SYSCALL: GS:0 is a word for RSP, GS:8 the top of the thread stack. Returns by IRETQ.
    "call.swapgs_in": "0f01f8",
    "call.rsp": "654889242500000000",
    "call.stack": "65488b242508000000",
    "call.frame": "6a2b65ff34250000000041536a3351",
    "call.orig_rax": "50",
    "call.save": "5756525150415041514152415353554154415541564157",
    "call.arguments": "4889e7",
    "call.call": "e8bc050000",
    "call.swapgs_out": "0f01f8",
    "call.restore": "415f415e415d415c5d5b415b415a4159415858595a5e5f4883c408",
    "call.iret": "48cf",
    # NMI on IST2. A nested one leaves a 1 in the word below its own frame, and the outer one runs its handler again.
    "nmi.nested": "50488b4424204831e048c1e80c0f849000000058",
    "nmi.copy": "4883ec10ff742430ff742430ff742430ff742430ff7424306aff",
    "nmi.save": "fc0f01ca5756525150415041514152415353554154415541564157b9010100c00f32bb0100000085d278050f01f831db",
    "nmi.clear": "48c78424a800000000000000",
    "nmi.arguments": "4889e731f6",
    "nmi.call": "e8cc030000",
    "nmi.repeat": "4883bc24a80000000075df",
    "nmi.exit": "85db75030f01f8415f415e415d415c5d5b415b415a4159415858595a5e5f4883c408",
    "nmi.iret": "48cf",
    "nmi.note": "48c74424f801000000",
    "nmi.leave": "5848cf",
}  # fmt: skip
STARTS = {"int3": 0x000, "gp": 0x100, "irq": 0x200, "call": 0x300, "nmi": 0x400}
TEXT = KERNEL_CODE + PAGE


def _addresses() -> dict[str, int]:
    places = {}
    for entry, names in itertools.groupby(PIECES, key=lambda name: name.partition(".")[0]):
        address = TEXT + STARTS[entry]
        for name in names:
            places[name] = address
            address += len(PIECES[name]) // 2
    return places


AT = _addresses()
"""Where each piece begins."""
HANDLERS = {"do_int3": TEXT + 0x800, "do_nmi": TEXT + 0x840, "do_gp": TEXT + 0x880, "do_irq": TEXT + 0x8C0, "do_call": TEXT + 0x900}
SCHEDULE = TEXT + 0x940
STUB = TEXT + 0x980
"""Room for code that a test adds."""
RESUME = USER_CODE + 0x80
"""Where user code ends the run."""
PERCPU = KERNEL_DATA
USER_GS = 0x41_0800
IRQ, INT80 = 0x72, 0x80
_PT_REGS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss"
PT_REGS = {name: 8 * n for n, name in enumerate(_PT_REGS.split())}

THREAD = Stack("thread", StackKind.THREAD, KERNEL_STACK, RSP0)
DEBUG = Stack("debug", StackKind.IST, IST_STACKS + 3 * PAGE, IST_STACKS + 3 * PAGE + 0x800)
NMI = Stack("nmi", StackKind.IST, IST_STACKS + 2 * PAGE, IST_STACKS + 2 * PAGE + 0x800)

CODE = EntryCode(
    handlers={
        HANDLERS["do_int3"]: Handler("do_int3", Origin.EXCEPTION, 3, ("debug",), ("debug",)),
        HANDLERS["do_nmi"]: Handler("do_nmi", Origin.NMI, 2, ("nmi",), ("nmi",)),
        HANDLERS["do_gp"]: Handler("do_gp", Origin.EXCEPTION, 13, ("thread",), ()),
        HANDLERS["do_irq"]: Handler("do_irq", Origin.INTERRUPT, None, (), ()),
        HANDLERS["do_call"]: Handler("do_call", Origin.SYSTEM_CALL, None, ("thread",), ()),
    },
    percpu=PERCPU,
    kernel_cr3=image().registers["cr3"],
    stacks=(THREAD, DEBUG, NMI),
    pt_regs=PT_REGS,
    text=((TEXT, TEXT + PAGE),),
    symbols={"schedule": SCHEDULE},
    bad_return=frozenset({AT["call.iret"]}),
)


def call(piece: str, target: int) -> str:
    """A CALL of `target` for the place of `piece`."""
    return "e8" + struct.pack("<i", target - AT[piece] - 5).hex()


def jump(at: int, target: int) -> bytes:
    """A JMP from an address to another."""
    return b"\xe9" + struct.pack("<i", target - at - 5)


def set_field(field: str, value: int) -> str:
    """The body of a handler that writes a field of its pt_regs."""
    return f"48c787{struct.pack('<iI', PT_REGS[field], value).hex()}"


def add_to_field(field: str, amount: int = 1) -> str:
    """Seven bytes of entry code, at whose RSP pt_regs is: INC or DEC of the low half of a field."""
    return f"ff{'84' if amount > 0 else '8c'}24{struct.pack('<i', PT_REGS[field]).hex()}"


def entry_text(changes: Mapping[str, str], handlers: Mapping[str, str]) -> dict[int, bytes]:
    """The entry code by address: a change replaces a piece, padded with NOP; handlers return at once or do what they are told first."""
    text = {}
    for name, code in PIECES.items():
        changed = bytes.fromhex(changes.get(name, code))
        assert len(changed) <= len(code) // 2, name
        text[AT[name]] = changed.ljust(len(code) // 2, b"\x90")
    assert not set(changes) - set(PIECES)
    for name, address in {**HANDLERS, "schedule": SCHEDULE}.items():
        text[address] = bytes.fromhex(handlers.get(name, "")) + b"\xc3"
    return text


def machine(
    code: str = "",
    cpl: int = 3,
    change: Mapping[str, str] | None = None,
    handlers: Mapping[str, str] | None = None,
    idt: Mapping[int, bytes] | None = None,
    memory: Mapping[int, bytes] | None = None,
    limit: int = 600,
    **parts: object,
) -> Image:
    """A machine with this entry code about to run `code` in user or kernel mode."""
    kernel = cpl == 0
    gates = {
        2: gate(AT["nmi.nested"], ist=2),
        3: gate(AT["int3.orig_rax"], ist=3, dpl=3),
        13: gate(AT["gp.cld"]),
        IRQ: gate(AT["irq.orig_rax"]),
        **(idt or {}),
    }
    pages = {PERCPU: q(0, RSP0), RESUME: b"\xcd\xf1", **entry_text(change or {}, handlers or {}), **(memory or {})}
    state: dict[str, object] = {
        "gs_base": PERCPU if kernel else USER_GS,
        "kernel_gs_base": USER_GS if kernel else PERCPU,
        "lstar": AT["call.swapgs_in"],
        "sfmask": 0x4_7700,
        "cr0": 0x8005_0033,
        "cr4": 1 << 5 | 1 << 6 | 1 << 21,
        "rflags": 0x202,
        "star": 0x0023_0010_0000_0000,
        "rdi": 0xD1,
        "rsi": 0x51,
        "rbx": 0xB,
        "r14": 0xE,
        "r11": 0x11,
        **parts,
    }
    return image(code, cpl, idt=gates, memory=pages, limit=limit, **state)  # type: ignore[arg-type]


def verdict(code: str = "", cpl: int = 3, entry: EntryCode = CODE, **parts: object) -> tuple[Observation, tuple[Violation, ...]]:
    """Run such a machine under the contract."""
    return judge(machine(code, cpl, **parts), entry)  # type: ignore[arg-type]


def broken(violations: Iterable[Violation]) -> list[str]:
    """The promises that did not hold, in order, each once."""
    return list(dict.fromkeys(violation.promise for violation in violations))


def with_handler(name: str, **fields: object) -> EntryCode:
    """The same entry code, one of its handlers described differently."""
    handlers = {address: replace(each, **fields) if each.name == name else each for address, each in CODE.handlers.items()}  # type: ignore[arg-type]
    return replace(CODE, handlers=handlers)
