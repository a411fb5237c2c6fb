"""Single-stepping, breakpoints and DR6 (SDM Vol. 3B, chapter 18; Vol. 3A, 7.8.3)."""

from __future__ import annotations

import pytest
from reference_machine import KERNEL_CODE, KERNEL_DATA, KERNEL_DS, USER_CODE, frame, gate, handler, outcome, outcomes, q, run

TF, RF, IF = 0x100, 0x1_0000, 0x200
DR6, BS, BD = 0xFFFF_0FF0, 0x4000, 0x2000
IRETQ = "48cf"
EXECUTE, WRITE, IO, ACCESS = range(4)
ONE, TWO, EIGHT, FOUR = range(4)


def dr7(number: int, kind: int, length: int = ONE, flag: int = 2) -> int:
    """DR7 with one breakpoint enabled, by its G flag."""
    return 0x400 | flag << 2 * number | kind << 16 + 4 * number | length << 18 + 4 * number


def test_tf_traps_after_the_instruction() -> None:
    ended = run("90 90", rflags=TF)

    assert (outcome(ended), frame(ended).rip, frame(ended).rflags) == ("#DB", KERNEL_CODE + 1, TF | 2)
    assert ended.register("dr6") == DR6 | BS


def test_dr6_is_never_cleared_by_the_processor() -> None:
    assert run("90 90", rflags=TF, dr6=DR6 | 0x800F).register("dr6") == DR6 | 0x800F | BS


def test_a_faulting_instruction_is_not_single_stepped() -> None:
    ended = run("0f0b", rflags=TF)

    assert (outcomes(ended), ended.register("dr6")) == (["#UD"], DR6)


@pytest.mark.parametrize(
    ("code", "vector"), [pytest.param("cd72", 0x72, id="int-n"), pytest.param("cc", 3, id="int3"), pytest.param("f1", 1, id="int1")]
)
def test_software_interrupts_are_not_single_stepped(code: str, vector: int) -> None:
    ended = run(code, rflags=TF, handlers={vector: "90 cdf1"})

    assert ([delivery.vector for delivery in ended.deliveries], ended.register("dr6")) == ([vector], DR6)


def test_popf_that_sets_tf_traps_after_the_next_instruction() -> None:
    ended = run("6800010000 9d 90 90")  # push 0x100; popf

    assert frame(ended).rip == KERNEL_CODE + 7


def test_popf_that_clears_tf_still_traps() -> None:
    ended = run("9d 90", rflags=TF, memory={0xFFFF_8880_0002_1000: q(2)})

    assert (frame(ended).rip, frame(ended).rflags) == (KERNEL_CODE + 1, 2)


def test_iret_that_sets_tf_traps_after_the_next_instruction() -> None:
    ended = run("0f0b 90 90", rflags=TF, handlers={6: "4883042402" + IRETQ})  # add qword [rsp], 2

    assert outcomes(ended) == ["#UD", "#DB"]
    assert frame(ended).rip == KERNEL_CODE + 3


@pytest.mark.parametrize(("mask", "expected"), [pytest.param(TF, "ended", id="masked"), pytest.param(0, "#DB", id="not-masked")])
def test_syscall_is_single_stepped_only_if_sfmask_keeps_tf(mask: int, expected: str) -> None:
    ended = run("0f05", 3, rflags=TF, sfmask=mask)

    assert outcome(ended) == expected


def test_syscalls_trap_returns_to_the_kernels_entry() -> None:
    assert frame(run("0f05", 3, rflags=TF)).rip == handler(0x80)


def test_sysret_that_sets_tf_traps_before_the_user_instruction() -> None:
    ended = run("480f07", rcx=USER_CODE, r11=TF)

    assert (outcome(ended), frame(ended).rip) == ("#DB", USER_CODE)


def test_each_iteration_of_a_string_instruction_is_single_stepped() -> None:
    ended = run("f3aa 90", rcx=3, rdi=KERNEL_DATA, rflags=TF)

    assert (frame(ended).rip, frame(ended).rflags & RF, ended.register("rcx")) == (KERNEL_CODE, RF, 2)


def test_a_load_of_ss_is_not_single_stepped() -> None:
    ended = run("8ed0 90 90", rax=KERNEL_DS, rflags=TF)

    assert (frame(ended).rip, len(ended.deliveries)) == (KERNEL_CODE + 3, 1)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("flag", [pytest.param(1, id="local"), pytest.param(2, id="global")])
def test_an_instruction_breakpoint_faults_before_the_instruction(number: int, flag: int) -> None:
    ended = run("90 90 90", dr7=dr7(number, EXECUTE, flag=flag), **{f"dr{number}": KERNEL_CODE + 1})

    assert (outcome(ended), frame(ended).rip, frame(ended).rflags) == ("#DB", KERNEL_CODE + 1, 2)
    assert ended.register("dr6") == DR6 | 1 << number


def test_all_instruction_breakpoints_that_match_are_reported() -> None:
    assert run("90", dr7=0x40A, dr0=KERNEL_CODE, dr1=KERNEL_CODE).register("dr6") == DR6 | 3


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"dr7": 0x400}, id="not-enabled"),
        pytest.param({"dr7": dr7(1, EXECUTE)}, id="another-one-enabled"),
        pytest.param({"dr7": dr7(0, WRITE)}, id="for-data-writes"),
        pytest.param({"dr7": dr7(0, ACCESS)}, id="for-data-accesses"),
        pytest.param({"dr7": dr7(0, EXECUTE), "dr0": KERNEL_CODE + 1}, id="inside-an-instruction"),
    ],
)
def test_other_breakpoints_do_not_stop_an_instruction(parts: dict[str, int]) -> None:
    assert outcome(run("6690 90", **{"dr0": KERNEL_CODE, **parts})) == "ended"


def test_rf_suppresses_an_instruction_breakpoint_once() -> None:
    parts = {"dr7": dr7(0, EXECUTE), "dr0": KERNEL_CODE + 1}

    assert outcome(run("ebfe", rflags=RF, dr7=dr7(0, EXECUTE), dr0=KERNEL_CODE)) == "#DB"
    assert outcome(run("90 90", rflags=RF, **parts)) == "#DB"


def test_a_debugger_passes_its_breakpoint_by_setting_rf_in_the_frame() -> None:
    # bts qword [rsp + 16], 16; iretq
    ended = run("90 90", dr7=dr7(0, EXECUTE), dr0=KERNEL_CODE, handlers={1: "480fba6c241010" + IRETQ})

    assert (outcomes(ended), ended.end) == (["#DB"], "ended")


def test_rf_stays_set_between_the_iterations_of_a_string_instruction() -> None:
    ended = run("f3aa", rflags=RF, rcx=3, rdi=KERNEL_DATA, dr7=dr7(0, EXECUTE), dr0=KERNEL_CODE)

    assert outcome(ended) == "ended"
    assert not ended.register("rflags") & RF


def test_an_instruction_breakpoint_comes_before_a_fault_of_the_fetch() -> None:
    assert outcome(run(rip=1 << 62, dr7=dr7(0, EXECUTE), dr0=1 << 62)) == "#DB"


def test_an_instruction_breakpoint_after_a_load_of_ss_is_suppressed() -> None:
    assert outcome(run("8ed0 90", rax=KERNEL_DS, dr7=dr7(0, EXECUTE), dr0=KERNEL_CODE + 2)) == "ended"
    assert outcome(run("8ed0 90 90", rax=KERNEL_DS, dr7=dr7(0, EXECUTE), dr0=KERNEL_CODE + 3)) == "#DB"


MOV_FROM, MOV_TO = "488b00", "488900"  # mov rax, [rax]; mov [rax], rax


@pytest.mark.parametrize(
    ("kind", "code", "hit"),
    [
        pytest.param(WRITE, MOV_TO, True, id="write-breakpoint-on-write"),
        pytest.param(WRITE, MOV_FROM, False, id="write-breakpoint-on-read"),
        pytest.param(ACCESS, MOV_TO, True, id="access-breakpoint-on-write"),
        pytest.param(ACCESS, MOV_FROM, True, id="access-breakpoint-on-read"),
        pytest.param(IO, MOV_TO, False, id="io-breakpoint-on-memory"),
        pytest.param(ACCESS, "488d00", False, id="lea-accesses-nothing"),
    ],
)
def test_a_data_breakpoint_traps_after_the_access(kind: int, code: str, hit: bool) -> None:
    ended = run(code + "90", rax=KERNEL_DATA, dr2=KERNEL_DATA, dr7=dr7(2, kind, EIGHT), cr4=0x68)

    assert (outcome(ended), ended.register("dr6")) == (("#DB", DR6 | 4) if hit else ("ended", DR6))
    if hit:
        assert (frame(ended).rip, frame(ended).rflags) == (KERNEL_CODE + 3, 2)


@pytest.mark.parametrize(("length", "size"), [(ONE, 1), (TWO, 2), (FOUR, 4), (EIGHT, 8)])
def test_a_data_breakpoint_covers_its_aligned_length(length: int, size: int) -> None:
    def hit(offset: int, watched: int = 16) -> bool:
        parts = {"rax": KERNEL_DATA + offset, "dr0": KERNEL_DATA + watched, "dr7": dr7(0, ACCESS, length)}
        return outcome(run("8a00", **parts)) == "#DB"  # mov al, [rax]

    assert [hit(offset) for offset in (15, 16, 16 + size - 1, 16 + size)] == [False, True, True, False]
    assert hit(16, watched=16 + size - 1)


def test_an_access_that_only_overlaps_a_breakpoint_hits_it() -> None:
    parts = {"rax": KERNEL_DATA, "dr7": dr7(0, WRITE)}

    assert outcome(run(MOV_TO, dr0=KERNEL_DATA + 7, **parts)) == "#DB"
    assert outcome(run(MOV_TO, dr0=KERNEL_DATA + 8, **parts)) == "ended"


def test_a_data_breakpoint_and_single_step_are_one_trap() -> None:
    ended = run(MOV_TO, rax=KERNEL_DATA, dr0=KERNEL_DATA, dr7=dr7(0, WRITE), rflags=TF)

    assert (outcomes(ended), ended.register("dr6")) == (["#DB"], DR6 | BS | 1)


def test_a_data_breakpoint_stops_a_string_instruction_after_the_iteration() -> None:
    ended = run("f3aa", rcx=4, rdi=KERNEL_DATA, dr0=KERNEL_DATA + 1, dr7=dr7(0, WRITE))

    assert (frame(ended).rip, frame(ended).rflags, ended.register("rcx")) == (KERNEL_CODE, RF | 2, 2)


def test_a_data_breakpoint_of_a_load_of_ss_is_held_until_after_the_next_instruction() -> None:
    # mov ss, [rax]
    parts = {"rax": KERNEL_DATA, "dr0": KERNEL_DATA, "dr7": dr7(0, ACCESS), "memory": {KERNEL_DATA: q(KERNEL_DS)}}

    ended = run("8e10 90 90", **parts)
    interrupted = run("8e10 cd72", handlers={0x72: "90 cdf1"}, **parts)

    assert frame(ended).rip == KERNEL_CODE + 3
    assert [(delivery.vector, delivery.rip) for delivery in interrupted.deliveries] == [(0x72, KERNEL_CODE + 4), (1, handler(0x72))]


def test_a_faulting_instruction_reports_no_data_breakpoint() -> None:
    # push qword [rax] with no stack
    ended = run("ff30", rax=KERNEL_DATA, rsp=8, dr0=KERNEL_DATA, dr7=dr7(0, ACCESS), idt={14: gate(handler(14), ist=1)})

    assert (outcomes(ended), ended.register("dr6")) == (["#PF"], DR6)


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        pytest.param("90", {"dr7": dr7(0, EXECUTE, TWO)}, id="instruction-breakpoint-longer-than-1"),
        pytest.param(MOV_TO, {"dr7": dr7(0, IO), "cr4": 0x60}, id="type-10b-without-cr4-de"),
        pytest.param("0f21e0", {"cr4": 0x68, "cpl": 3}, id="dr4-with-de-at-cpl-3"),
        pytest.param("8e10 0f0b", {"dr7": dr7(0, ACCESS), "memory": {KERNEL_DATA: q(KERNEL_DS)}}, id="fault-while-a-breakpoint-is-held"),
    ],
)
def test_what_the_manual_leaves_open_is_not_modelled(code: str, parts: dict[str, object]) -> None:
    assert outcome(run(code, rax=KERNEL_DATA, dr0=KERNEL_DATA, **parts)).startswith("not modelled: ")


def test_bits_of_dr6_for_breakpoints_that_are_not_enabled_are_open() -> None:
    # the handler of #DB: mov rax, dr6
    parts = {"rax": KERNEL_DATA, "dr0": KERNEL_DATA, "dr1": KERNEL_DATA, "dr7": dr7(0, ACCESS)}

    assert run("488b18 90", **parts).undefined.dr6 == 0b1110
    assert outcome(run("488b18 90", handlers={1: "0f21f0 cdf1"}, **parts)).startswith("not modelled: ")


@pytest.mark.parametrize("code", [pytest.param("0f21c0", id="read"), pytest.param("0f23c0", id="write")])
def test_general_detect_faults_before_a_debug_register_is_accessed(code: str) -> None:
    ended = run(code, rax=5, dr7=0x2400)

    assert (outcome(ended), frame(ended).rip, frame(ended).rflags) == ("#DB", KERNEL_CODE, RF | 2)
    assert [ended.register(name) for name in ("dr6", "dr7", "dr0", "rax")] == [DR6 | BD, 0x400, 0, 5]
