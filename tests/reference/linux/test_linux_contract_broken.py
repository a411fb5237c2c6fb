"""Each promise, broken by one wrong step in the small entry code: named, and put down to the instruction at which it broke."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from linux_small_entry import AT, CODE, HANDLERS, IRQ, PIECES, RESUME, STUB, add_to_field, broken, call, jump, set_field, verdict
from linux_small_entry import SCHEDULE as SCHEDULER
from reference_machine import KERNEL_RSP, TSS, USER_CODE, USER_DS, USER_RSP, gate, interrupt, machine_check, nmi

from reference.bits import AC, DF
from reference.linux.contract import PROMISES
from reference.linux.entry_code import Convention, EntryCode, Handler, Origin

DROPPED = ""
SWAPGS = "0f01f8"
NO_SMAP = 1 << 5 | 1 << 6
USER_CR3 = CODE.kernel_cr3 | 8
FIX = set_field("rip", RESUME)
BAD_CS = set_field("cs", 0xFFF3)


@dataclass(frozen=True)
class Wrong:
    """A machine whose entry code is wrong, the promise that breaks first, and the piece of code or the handler where it does."""

    promise: str
    at: str
    code: str = "90 90 90"
    cpl: int = 3
    parts: dict[str, object] = field(default_factory=dict)
    entry: EntryCode = CODE


def changed(**pieces: str) -> dict[str, object]:
    """Parts of a machine: changes of the entry code, with `__` for the dot."""
    return {"change": {name.replace("__", "."): code.replace(" ", "") for name, code in pieces.items()}}


def interrupted(**pieces: str) -> dict[str, object]:
    """The same with an interrupt after the first instruction."""
    return {**changed(**pieces), "events": (interrupt(1, IRQ),)}


def on_the_way_out(code: str) -> dict[str, object]:
    """An interrupt of the kernel whose exit does something else instead of the test for user mode: 13 bytes in two pieces."""
    return interrupted(irq__test_out=code.replace(" ", "")[:20], irq__swapgs_out=code.replace(" ", "")[20:])


def nmi_exit(code: str) -> dict[str, object]:
    """The same with the 7 bytes that ask about GS, behind the call of do_nmi."""
    return {**changed(nmi__repeat=add_to_field("rip"), nmi__exit=code + PIECES["nmi.exit"][14:]), "events": (nmi(1),)}


def overwrite(address: int) -> str:
    """The body of a handler that writes a word there."""
    return "48b8" + address.to_bytes(8, "little").hex() + "488900"


def swapped(piece: str, one: str, other: str) -> str:
    """A piece in which two instructions have changed places."""
    assert one + other in PIECES[piece]
    return PIECES[piece].replace(one + other, other + one)


def zero_msr(number: int) -> str:
    """WRMSR of 0, 11 bytes."""
    return f"b9{number:02x}0100c0 31c0 31d2 0f30"


def at_once(vector: int = IRQ) -> dict[str, object]:
    return {"sfmask": 0, "events": (interrupt(1, vector),)}


GS = {
    "swapgs-dropped": Wrong("gs-base", "int3.call", "cc", parts=changed(int3__swapgs_in=DROPPED)),
    "cheap-test-in-the-gap": Wrong("gs-base", "irq.call", "0f05", parts={"idt": {2: gate(AT["irq.orig_rax"], ist=2)}, "events": (nmi(1),)}),
    "swapgs-twice": Wrong("swapgs-once-each-way", "irq.test", parts=interrupted(irq__test=2 * SWAPGS)),
    "swapgs-out-only": Wrong("swapgs-once-each-way", "irq.swapgs_out", cpl=0, parts=interrupted(irq__test_out=DROPPED)),
    "swapgs-out-thrice": Wrong("swapgs-once-each-way", "irq.test_out", parts=interrupted(irq__test_out=2 * SWAPGS)),
    "swapgs-out-dropped": Wrong("gs-restored", "irq.iret", parts=interrupted(irq__swapgs_out=DROPPED)),
    "kernel-gs-base-changed": Wrong("gs-restored", "irq.iret", cpl=0, parts=on_the_way_out(zero_msr(2))),
}  # fmt: skip
GIVEN = {
    "registers-out-of-order": Wrong("pt-regs", "int3.call", "cc", parts=changed(int3__save=swapped("int3.save", "57", "56"))),
    "cs-of-a-system-call": Wrong("pt-regs", "call.call", "0f05", parts=changed(call__frame=PIECES["call.frame"].replace("6a33", "6a10"))),
    "rdi-points-nowhere": Wrong("pt-regs", "int3.call", "cc", parts=changed(int3__arguments="31ff 31f6")),
    "orig-rax-of-an-exception": Wrong("orig-rax", "int3.call", "cc", parts=changed(int3__orig_rax="6a00")),
    "orig-rax-of-an-interrupt": Wrong("orig-rax", "irq.call", parts=interrupted(irq__orig_rax="6a72")),
    "orig-rax-of-a-system-call": Wrong("orig-rax", "call.call", "0f05", parts=changed(call__orig_rax="51")),
    "rsi-not-cleared": Wrong("error-code", "int3.call", "cc", parts=changed(int3__arguments="4889e7")),
    "error-code-lost": Wrong("error-code", "gp.call", "f4", parts={
        **changed(gp__arguments=PIECES["gp.arguments"].replace("488b742478", "31f6ffc690")), "handlers": {"do_gp": FIX}}),
    "handler-of-another-vector": Wrong("own-handler", "int3.call", "cc", parts=changed(int3__call=call("int3.call", HANDLERS["do_gp"]))),
    "handler-of-an-interrupt": Wrong("own-handler", "call.call", "0f05", parts={
        **changed(call__call=call("call.call", HANDLERS["do_irq"])), "rax": 1 << 63}),
    "df-not-cleared": Wrong("direction-flag", "int3.call", "cc", parts={**changed(int3__cld=DROPPED), "rflags": 0x202 | DF}),
    "ac-not-cleared": Wrong("access-control", "int3.call", "cc", parts={**changed(int3__clac=DROPPED), "rflags": 0x202 | AC}),
    "cr3-not-switched": Wrong("kernel-cr3", "int3.call", "cc", parts={**changed(int3__cr3_in=PIECES["int3.cr3_in"][:8]), "cr3": USER_CR3}),
}  # fmt: skip


def with_machine_checks() -> EntryCode:
    """The int3 entry is vector 18's."""
    handler = Handler("do_machine_check", Origin.MACHINE_CHECK, 18, ("debug",), ("debug",))
    return replace(CODE, handlers={**CODE.handlers, HANDLERS["do_int3"]: handler})


STACKS = {
    "gate-without-ist": Wrong("handler-stack", "int3.call", "cc", 0, {"idt": {3: gate(AT["int3.orig_rax"])}}),
    "interrupt-with-ist": Wrong("handler-stack", "irq.call", cpl=0, parts={**interrupted(), "idt": {IRQ: gate(AT["irq.orig_rax"], ist=3)}}),
    "stack-not-loaded": Wrong("handler-stack", "call.call", "0f05", parts={**changed(call__stack=DROPPED), "cr4": NO_SMAP}),
    "push-on-the-users-stack": Wrong("user-stack-untouched", "call.call", "0f05", parts={
        "lstar": STUB, "memory": {STUB: bytes.fromhex("5058") + jump(STUB + 2, AT["call.swapgs_in"])}, "cr4": NO_SMAP, "rax": 7}),
    "frame-on-the-users-stack": Wrong("stack-of-its-own", "call.swapgs_in", "0f05", parts={**at_once(), "cr4": NO_SMAP}),
    "frame-on-a-stack-the-user-chose": Wrong("stack-of-its-own", "call.swapgs_in", "0f05", parts={**at_once(), "rsp": KERNEL_RSP}),
    "double-fault-on-the-users-stack": Wrong("stack-of-its-own", "call.swapgs_in", "0f05", parts={
        **at_once(), "idt": {8: gate(AT["gp.cld"], ist=3)}}),
    "ist-not-shifted": Wrong("stack-of-its-own", "do_int3", "cc", parts={"handlers": {"do_int3": "cc"}}),
    "frame-over-a-nested-nmi": Wrong("stack-of-its-own", "nmi.note", cpl=0, entry=with_machine_checks(), parts={
        "idt": {18: gate(AT["int3.orig_rax"], ist=3)}, "events": (nmi(1), nmi(2), machine_check(93), nmi(94)),
        "handlers": {"do_nmi": "b8f8ff0000 8ec0", "do_gp": "488387 80000000 02"}}),
    "word-above-rsp": Wrong("interrupted-stack", "irq.iret", cpl=0, parts=on_the_way_out("48ff8c24 b0000000 9090")),
    "word-below-rsp": Wrong("interrupted-stack", "int3.iret", "cc", 0, {"handlers": {"do_int3": overwrite(KERNEL_RSP - 64)}}),
    "ist-not-restored": Wrong("ist-restored", "int3.iret", "cc", 0, {"handlers": {"do_int3": overwrite(TSS + 28 + 8)}}),
    "fault-in-the-entry-code": Wrong("no-exception-of-its-own", "int3.save", "cc", parts=changed(int3__save="0f0b")),
    "no-stack-and-no-handler": Wrong("survives", "", "cc", parts={"idtr_limit": 0}),
}  # fmt: skip
RESCHEDULES = {
    **changed(gp__test_out=call("gp.test_out", SCHEDULER), gp__swapgs_out=DROPPED),
    "handlers": {"do_gp": "488387 80000000 02"},
    "rax": 0xFFF8,
    "rflags": 2,
}
BACK = {
    "handler-not-called": Wrong("handler-ran", "int3.iret", "cc", 0, changed(int3__call=DROPPED)),
    "registers-out-of-order": Wrong("registers-restored", "int3.iret", "cc", 0, changed(int3__restore=swapped("int3.restore", "5e", "5f"))),
    "registers-before-a-bad-return": Wrong("registers-restored", "call.iret", "0f05", parts={
        **changed(call__restore=swapped("call.restore", "5e", "5f")), "handlers": {"do_call": BAD_CS, "do_gp": set_field("cs", 0x33)}}),
    "bad-return-not-repaired": Wrong("gs-base", "gp.call", "0f05", parts={
        **changed(gp__bad_return=PIECES["gp.bad_return"].replace("7518", "eb18")), "handlers": {"do_call": BAD_CS}}),
    "cr3-not-restored": Wrong("cr3-restored", "int3.iret", "cc", parts={**changed(int3__cr3_out=DROPPED), "cr3": USER_CR3}),
    "rsp-is-off": Wrong("return-frame", "irq.iret", cpl=0, parts=on_the_way_out(add_to_field("rsp"))),
    "rip-is-off": Wrong("return-frame", "irq.iret", cpl=0, parts=on_the_way_out(add_to_field("rip"))),
    "both-are-off": Wrong("return-frame", "nmi.iret", cpl=0, parts=nmi_exit(add_to_field("rsp"))),
    "rip-of-user-mode-is-off": Wrong("return-frame", "irq.iret", parts=interrupted(irq__test_out=add_to_field("rip"))),
    "es-changed": Wrong("segments-kept", "irq.iret", cpl=0, parts={**on_the_way_out("31c08ec0"), "es": USER_DS}),
    "fs-base-changed": Wrong("segments-kept", "irq.iret", cpl=0, parts={**on_the_way_out(zero_msr(0)), "fs_base": 5}),
    "sysret-of-an-nmi": Wrong("nmi-latch", "nmi.note", parts={
        **changed(nmi__iret="5948", nmi__note="83c408 415b 5c 480f07"), "events": (nmi(1),), "rcx": USER_CODE + 1, "r11": 0x202}),
    "nested-nmi-forgotten": Wrong("nmi-repeated", "nmi.iret", cpl=0, parts={
        **changed(nmi__note=DROPPED), "events": (nmi(1), nmi(30)), "handlers": {"do_nmi": "cc 90"}}),
    "straight-to-user-mode": Wrong("return-in-order", "int3.iret", "0f05", parts={"handlers": {"do_call": "cc", "do_int3": "".join((
        set_field("rip", RESUME), set_field("cs", 0x33), set_field("rsp", USER_RSP), set_field("ss", 0x2B)))}}),
    "rescheduled": Wrong("no-rescheduling", "int3.test", "cc", 0, changed(
        int3__test=call("int3.test", SCHEDULER)[:8], int3__swapgs_out=call("int3.test", SCHEDULER)[8:])),
    "rescheduled-with-interrupts-off": Wrong("no-rescheduling", "gp.test_out", "8ec0", 0, RESCHEDULES),
}  # fmt: skip
_GROUPS = {"gs": GS, "given": GIVEN, "stack": STACKS, "back": BACK}
ALL = {f"{group}-{name}": case for group, cases in _GROUPS.items() for name, case in cases.items()}


def place(rip: int) -> str:
    """The piece of entry code or the handler that an address belongs to."""
    pieces = {name: (address, len(PIECES[name]) // 2) for name, address in AT.items()} | {name: (at, 32) for name, at in HANDLERS.items()}
    return next((name for name, (address, size) in pieces.items() if address <= rip < address + size), "")


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_a_broken_promise_is_named_with_the_instruction_that_broke_it(case: Wrong) -> None:
    _, violations = verdict(case.code, case.cpl, case.entry, **case.parts)

    assert (violations[0].promise, place(violations[0].rip)) == (case.promise, case.at), violations
    assert 0 <= violations[0].boundary < 600


def test_every_promise_is_broken_by_one_of_them() -> None:
    assert {case.promise for case in ALL.values()} == {promise.name for promise in PROMISES}


@pytest.mark.parametrize("promise", ["gs-base", "swapgs-once-each-way"])
def test_what_follows_from_a_broken_promise_is_told_too(promise: str) -> None:
    _, violations = verdict("cc", change={"int3.swapgs_in": DROPPED})

    assert promise in broken(violations)


@pytest.mark.parametrize(("cpl", "rflags"), [(0, 0x202), (3, 0x202)], ids=["interrupts-on", "user-mode"])
def test_other_exits_may_call_the_scheduler(cpl: int, rflags: int) -> None:
    change = {"gp.swapgs_in": "", "gp.swapgs_out": "", "gp.test_out": call("gp.test_out", SCHEDULER)}

    _, violations = verdict("8ec0", cpl, **{**RESCHEDULES, "change": change, "rflags": rflags})

    assert "no-rescheduling" not in broken(violations)


# What an entry's convention leaves open


def test_registers_that_a_convention_gives_up_are_not_asked_for() -> None:
    change = {"call.restore": swapped("call.restore", "5e", "5f")}
    convention = {AT["call.swapgs_in"]: Convention(clobbered=frozenset({"rsi", "rdi"}))}

    assert broken(verdict("0f05", change=change)[1]) == ["registers-restored"]
    assert broken(verdict("0f05", entry=replace(CODE, conventions=convention), change=change)[1]) == []


def test_fields_that_a_convention_leaves_open_are_not_asked_for() -> None:
    change = {"call.save": swapped("call.save", "57", "56")}
    convention = {AT["call.swapgs_in"]: Convention(open=frozenset({"rsi", "rdi"}))}

    assert broken(verdict("0f05", change=change)[1]) == ["pt-regs"]
    assert broken(verdict("0f05", entry=replace(CODE, conventions=convention), change=change)[1]) == []


@pytest.mark.parametrize(("change", "expected"), [
    pytest.param({}, [], id="right"),
    pytest.param({"call.call": DROPPED}, ["swapgs-once-each-way", "handler-ran"], id="no-handler"),
])  # fmt: skip
def test_sysenter_saves_nothing_so_nothing_is_promised_of_what_it_loses(change: dict[str, str], expected: list[str]) -> None:
    _, violations = verdict("0f34", change=change, sysenter_eip=AT["call.swapgs_in"], rcx=RESUME, r11=0x202, rax=3)

    assert broken(violations) == expected
