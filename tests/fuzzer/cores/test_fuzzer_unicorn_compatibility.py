"""32-bit user code under a 64-bit kernel: what runs, how it enters handlers, and how they return. Expectations from the manuals."""

from __future__ import annotations

import pytest
from fuzzer_builders import entered, interrupt, nmi, words_at
from fuzzer_machines import COMPATIBILITY, machine, observe, open_gate, with_pages

from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.targets import layout, tables
from fuzzer.targets.target import Patch, patch
from reference.image import End

CODE = layout.USER_CODE.start
KERNEL_CODE = layout.KERNEL_CODE.start
DATA = layout.USER_DATA.start + 0x100
STACK = layout.USER_STACK.end - 0x100
IF, RF = 1 << 9, 1 << 16
STAR = (0x23 << 48) | (layout.KERNEL_CS << 32)
BOTH = pytest.mark.parametrize("profile", ["intel", "amd"])
SYSCALL, SYSENTER = "0f05", "0f34"


@BOTH
def test_code_of_32_bits_runs_as_such(core: UnicornCore, profile: str) -> None:
    """40 is INC EAX there and a REX prefix in 64-bit code; the ending interrupt saves the 32-bit selector."""
    seen = observe(core, machine("40 40 90", profile=profile, rax=0xFFFF_FFFE, **COMPATIBILITY))

    assert (seen.end, seen.retired) == (End.ENDED, 3)
    assert [seen.register(name) for name in ("rax", "rip", "cs", "ss")] == [0, CODE + 5, layout.USER32_CS, layout.USER_DS]


@BOTH
def test_pushes_and_addresses_are_of_32_bits(core: UnicornCore, profile: str) -> None:
    """PUSH -1, POP ECX: ESP is back, ECX is 32 bits; then a sum of EAX and ECX that wraps at 4 GiB."""
    word = patch(layout.USER_DATA, 0x100, bytes.fromhex("78563412"))
    image = machine("6aff 59 8b1401", profile=profile, memory=[word], rax=DATA + 1, rsp=STACK, **COMPATIBILITY)

    seen = observe(core, image)

    assert [seen.register(name) for name in ("rcx", "rsp", "rdx")] == [0xFFFF_FFFF, STACK, 0x1234_5678]


@BOTH
def test_int_80_pushes_five_64_bit_words_and_iretq_returns_to_32_bit_code(core: UnicornCore, profile: str) -> None:
    image = machine("40 cd80 40", profile=profile, memory=open_gate(0x80), rax=5, rsp=STACK, **COMPATIBILITY)

    seen = observe(core, image)

    assert entered(seen) == [(1, 0x80, None, CODE + 3, 3)]
    assert (seen.end, seen.register("rax"), seen.register("cs"), seen.retired) == (End.ENDED, 7, layout.USER32_CS, 4)
    frame = words_at(image, seen, layout.THREAD_STACK, layout.THREAD_STACK.end - 40, 5)
    assert frame[:2] + frame[3:] == (CODE + 3, layout.USER32_CS, STACK, layout.USER_DS)


@BOTH
def test_the_handler_of_32_bit_code_is_64_bit_code(core: UnicornCore, profile: str) -> None:
    """48 ff c0 is INC RAX there; as 32-bit code it would be DEC EAX, INC EAX."""
    seen = observe(core, machine("cd80", profile=profile, memory=open_gate(0x80, "48ffc0 48cf"), rax=0xFFFF_FFFF, **COMPATIBILITY))

    assert (seen.end, seen.register("rax"), seen.register("cs")) == (End.ENDED, 1 << 32, layout.USER32_CS)


@BOTH
@pytest.mark.parametrize("opcode", ["0f07", "480f07"], ids=["32-bit", "64-bit"])
def test_sysret_returns_to_code_of_its_size(core: UnicornCore, profile: str, opcode: str) -> None:
    """Without REX.W, CS is STAR[63:48] as it is; with it, 16 more (SDM Vol. 2B, SYSRET). Then 40 40 adds 2, or nothing."""
    narrow = opcode == "0f07"
    user = machine("40 40 90", profile=profile)
    code = machine(opcode, "kernel", profile, rcx=CODE, r11=IF | 2, star=STAR, rax=1)
    frame = tables.FRAMES["user_code"]

    seen = observe(core, with_pages(code, {frame: user.pages[frame]}))

    assert seen.register("cs") == (layout.USER32_CS if narrow else layout.USER_CS)
    assert seen.register("rax") == (3 if narrow else 1)
    assert (seen.end, seen.register("rip")) == (End.ENDED, CODE + 5)


def test_syscall_from_32_bit_code_goes_to_cstar_on_amd(core: UnicornCore) -> None:
    """APM Vol. 3, SYSCALL: RCX the next RIP, R11 RFLAGS, RIP CSTAR, SFMASK as in 64-bit code; CS becomes 64-bit code."""
    kernel = open_gate(0x90, "48ffc0 cdf1")
    target = layout.KERNEL_TEXT.start + 0x900
    image = machine(
        SYSCALL, profile="amd", memory=kernel, rax=0xFFFF_FFFF, star=STAR, cstar=target, lstar=KERNEL_CODE, sfmask=IF, **COMPATIBILITY
    )

    seen = observe(core, image)

    assert (seen.end, seen.register("rip"), seen.register("rax")) == (End.ENDED, target + 5, 1 << 32)
    assert (seen.register("cs"), seen.register("ss")) == (layout.KERNEL_CS, layout.KERNEL_DS)
    assert (seen.register("rcx"), seen.register("r11"), seen.register("rflags") & IF) == (CODE + 2, IF | 2, 0)


def test_sysenter_from_32_bit_code_enters_64_bit_code_on_intel(core: UnicornCore) -> None:
    """SDM Vol. 2B, SYSENTER: RIP and RSP are 64-bit values of the MSRs."""
    kernel = open_gate(0x90, "48ffc0 cdf1")
    target = layout.KERNEL_TEXT.start + 0x900
    esp = layout.THREAD_STACK.end - 0x40
    image = machine(
        SYSENTER,
        memory=kernel,
        rax=0xFFFF_FFFF,
        sysenter_cs=layout.KERNEL_CS,
        sysenter_eip=target,
        sysenter_esp=esp,
        **COMPATIBILITY,
    )

    seen = observe(core, image)

    assert (seen.end, seen.register("rip"), seen.register("rax"), seen.register("rsp")) == (End.ENDED, target + 5, 1 << 32, esp)
    assert (seen.register("cs"), seen.register("ss"), seen.register("rflags") & IF) == (layout.KERNEL_CS, layout.KERNEL_DS, 0)


@pytest.mark.parametrize(("profile", "code"), [("intel", SYSCALL), ("amd", SYSENTER)])
def test_the_other_vendors_call_is_undefined(core: UnicornCore, profile: str, code: str) -> None:
    """SDM Vol. 2B, SYSCALL: #UD outside 64-bit mode. APM Vol. 3, SYSENTER: #UD in long mode."""
    seen = observe(core, machine("40" + code, profile=profile, rax=1, **COMPATIBILITY))

    assert entered(seen) == [(1, 6, None, CODE + 1, 3)]
    assert (seen.register("rax"), seen.register("rcx")) == (2, 0)


def test_a_trap_behind_sysenter_from_32_bit_code_is_taken_in_the_kernel(core: UnicornCore) -> None:
    """SYSENTER leaves TF as it was (SDM Vol. 2B, SYSENTER)."""
    stepping = {**COMPATIBILITY, "rflags": 0x302}
    image = machine(SYSENTER, sysenter_cs=layout.KERNEL_CS, sysenter_eip=KERNEL_CODE, sysenter_esp=layout.THREAD_STACK.end, **stepping)

    assert entered(observe(core, image)) == [(1, 1, None, KERNEL_CODE, 0)]


@BOTH
@pytest.mark.parametrize("boundary", range(6))
@pytest.mark.parametrize("kind", ["interrupt", "nmi"])
def test_events_arrive_at_every_boundary_of_32_bit_code(core: UnicornCore, profile: str, boundary: int, kind: str) -> None:
    """Five boundaries are in the iterations of REP STOSB with ECX; RF is set between them."""
    event = interrupt(boundary) if kind == "interrupt" else nmi(boundary)
    vector = 0x21 if kind == "interrupt" else 2
    image = machine("40 f3aa 40", profile=profile, events=[event], rcx=3, rdi=DATA, **COMPATIBILITY)

    seen = observe(core, image)

    address = CODE + {0: 0, 1: 1, 2: 1, 3: 1, 4: 3, 5: 4}[boundary]
    assert entered(seen) == [(boundary, vector, None, address, 3)]
    assert (seen.end, seen.register("rax"), seen.register("cs"), seen.retired) == (End.ENDED, 2, layout.USER32_CS, 6)
    stack = layout.THREAD_STACK if kind == "interrupt" else layout.NMI_STACK
    flags = words_at(image, seen, stack, stack.end - 40, 5)[2]
    assert bool(flags & RF) == (boundary in (2, 3))


@BOTH
def test_pop_ss_holds_an_interrupt_for_one_instruction(core: UnicornCore, profile: str) -> None:
    """SDM Vol. 2B, POP: events wait behind POP SS as behind MOV SS. 16 17 is PUSH SS, POP SS."""
    seen = observe(core, machine("16 17 40 40", profile=profile, events=[interrupt(2)], rsp=STACK, **COMPATIBILITY))

    assert entered(seen) == [(3, 0x21, None, CODE + 3, 3)]


def test_a_repeated_instruction_is_read_in_the_size_it_ran_in(core: UnicornCore) -> None:
    """REP STOSB in 64-bit code, a far jump to 32-bit code that does the same twice: each iteration is a boundary."""
    pointer = (CODE + 9).to_bytes(4, "little") + layout.USER32_CS.to_bytes(2, "little")
    places = [patch(layout.USER_DATA, 0, pointer)]
    code = "f3aa b903000000 ff28" + "f3aa b903000000 f3aa 40"

    seen = observe(core, machine(code, memory=places, rcx=3, rdi=DATA, rax=layout.USER_DATA.start))

    assert seen.end is End.ENDED
    assert [seen.register(name) for name in ("rax", "rdi", "cs")] == [layout.USER_DATA.start + 1, DATA + 9, layout.USER32_CS]
    assert seen.retired == 3 + 1 + 1 + 3 + 1 + 3 + 1


@BOTH
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("cd30", (13, 0x30 * 8 + 2, CODE), id="int-n-of-the-kernel"),
        pytest.param("cc", (3, None, CODE + 1), id="int3"),
        pytest.param("fa", (13, 0, CODE), id="cli"),
        pytest.param("0f0b", (6, None, CODE), id="undefined"),
        pytest.param("8ed8", (13, 0xF8, CODE), id="selector"),
        pytest.param("8b00", (14, 4, CODE), id="page-fault"),
    ],
)
def test_faults_of_32_bit_code_enter_64_bit_handlers(
    core: UnicornCore, profile: str, code: str, expected: tuple[int, int | None, int]
) -> None:
    seen = observe(core, machine(code, profile=profile, rax=0xFB, **COMPATIBILITY))

    vector, error_code, rip = expected
    assert entered(seen) == [(0, vector, error_code, rip, 3)]
    assert seen.register("cs") == layout.KERNEL_CS


def segment(selector: int, base: int, code: bool = False) -> Patch:
    """A 32-bit segment of user mode with a base, in the GDT."""
    return patch(layout.GDT, selector, tables.segment(0xB if code else 0x3, 3, base=base).to_bytes(8, "little"))


@BOTH
def test_the_base_of_ds_counts(core: UnicornCore, profile: str) -> None:
    """As it does not in 64-bit code (SDM Vol. 3A, 3.2.4)."""
    word = patch(layout.USER_DATA, 0x104, bytes.fromhex("78563412"))
    registers = {**COMPATIBILITY, "ds": 0x98 | 3}

    # mov edx, [4]
    seen = observe(core, machine("8b1504000000", profile=profile, memory=[word, segment(0x98, DATA)], **registers))

    assert (seen.end, seen.register("rdx")) == (End.ENDED, 0x1234_5678)


@pytest.mark.parametrize("entering", [False, True], ids=["from-the-start", "by-a-far-jump"])
def test_code_in_a_segment_with_a_base_is_not_supported(core: UnicornCore, entering: bool) -> None:
    """What the engine records are linear addresses, and they would not be RIP."""
    based = segment(0x98, 0x1000, code=True)
    registers = COMPATIBILITY if entering else {**COMPATIBILITY, "cs": 0x9B}
    code = "ea00f03f009b00" if entering else "90"

    seen = observe(core, machine(code, memory=[based], **registers))

    assert (seen.end, seen.detail) == (End.UNSUPPORTED, "32-bit code in a segment with a base")


@BOTH
def test_a_breakpoint_is_met_in_32_bit_code_and_taken_out_behind_it(core: UnicornCore, profile: str) -> None:
    watched = machine("90 90 90", profile=profile, dr0=CODE + 1, dr7=0x401, **COMPATIBILITY)
    plain = machine("90 90 90", profile=profile, **COMPATIBILITY)

    seen = [entered(observe(core, image)) for image in (plain, watched, plain)]

    assert seen == [[], [(1, 1, None, CODE + 1, 3)], []]


@BOTH
@pytest.mark.parametrize("code", ["40 cd80 f3aa 40", "40 0f0b", "16 17 90", "40 0f05", "40 0f34"])
def test_a_trace_of_32_bit_code_ends_as_the_run_does(core: UnicornCore, profile: str, code: str) -> None:
    image = machine(code, profile=profile, events=[interrupt(2)], memory=open_gate(0x80), rcx=3, rdi=DATA, rsp=STACK, **COMPATIBILITY)
    seen = observe(core, image)

    last = list(core.trace(image))[-1]

    assert (last.end, last.registers, last.retired, dict(last.memory)) == (seen.end, seen.registers, seen.retired, dict(seen.memory))


@BOTH
def test_one_address_runs_as_32_bit_and_as_64_bit_code(core: UnicornCore, profile: str) -> None:
    """Nothing that was translated for one size runs in the other: 48 ff c0 is DEC EAX, INC EAX, or INC RAX."""
    wide, narrow = machine("48ffc0", profile=profile, rax=5), machine("48ffc0", profile=profile, rax=5, **COMPATIBILITY)

    seen = [observe(core, image) for image in (wide, narrow, wide, narrow)]

    assert [(each.register("rax"), each.retired) for each in seen] == [(6, 1), (5, 2), (6, 1), (5, 2)]


@BOTH
def test_an_interrupt_that_waits_finds_the_popf_of_32_bit_code(core: UnicornCore, profile: str) -> None:
    """With IOPL 3, CLI and POPF work at CPL 3: the interrupt that waits is taken behind POPFD, not before."""
    # cli; inc eax; push 0x3202; popf; inc eax
    code = "fa 40 6802320000 9d 40"
    registers = {**COMPATIBILITY, "rflags": 0x3202}

    seen = observe(core, machine(code, profile=profile, events=[interrupt(1)], rsp=STACK, **registers))

    assert entered(seen) == [(4, 0x21, None, CODE + 8, 3)]
    assert (seen.end, seen.register("rax")) == (End.ENDED, 2)
