"""Somebody's own entry code as a target: its paths run, handlers are recorded, the contract is judged."""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from iced_x86 import Decoder, Mnemonic
from own_examples import MANIFEST, SYMBOLS, elf, hobby, tiny

from fuzzer.build import build, builder
from fuzzer.case import Case, decode, encode
from fuzzer.case_fields import CaseError
from fuzzer.case_json import dump, parse
from fuzzer.sweep.sweep import sweep_path
from fuzzer.targets import layout, registry, tables
from fuzzer.targets.own import recorder
from fuzzer.targets.own.placement import DATA_START, TEXT_START
from fuzzer.targets.target import Target
from reference.image import End, Event, EventKind, Observation
from reference.linux.contract import judge
from reference.run import run

HOBBY = hobby().target
KINDS = ("interrupt:0x20", "nmi")


def observed(target: Target, scenario: str, *events: Event) -> Observation:
    return run(builder(target)(Case(target.name, scenario, "intel", events=events)))


def log(observation: Observation) -> tuple[int, ...]:
    """The first record of the log: handler, error code, RSP, pt_regs, RFLAGS, GS.base, KERNEL_GS_BASE, CR3, and pt_regs."""
    return struct.unpack_from("<30Q", observation.memory[tables.FRAMES["log"]])


# The example


@pytest.mark.parametrize("scenario", [each.name for each in HOBBY.scenarios])
def test_every_path_of_the_example_ends_and_keeps_the_contract_when_nothing_arrives(scenario: str) -> None:
    assert HOBBY.code is not None

    observation, violations = judge(builder(HOBBY)(Case("hobby", scenario, "intel")), HOBBY.code)

    assert observation.end is End.ENDED
    assert violations == ()


def test_only_arrivals_show_the_mistake_in_the_example() -> None:
    """The NMI handler runs with the user's GS where the kernel was interrupted before its SWAPGS, or behind the last one."""
    build_hobby = builder(HOBBY)

    found = [
        (result.scenario, breach.violation.promise, breach.hits)
        for scenario in HOBBY.scenarios
        for result in [sweep_path(HOBBY, build_hobby, scenario.name, "intel", KINDS, 1, None)]
        for breach in result.breaches
    ]

    # SYSCALL: before its SWAPGS and before its SYSRET. Page fault: from its CLD to its SWAPGS, and from the other one to its IRET.
    assert found == [("system-call-from-user", "gs-base", 2), ("page-fault-from-user", "gs-base", 18 + 17)]


def test_the_handlers_that_the_code_does_not_define_are_recorders() -> None:
    observation = observed(HOBBY, "page-fault-from-user")

    handler, error_code, _, pt_regs, _, gs_base, kernel_gs_base, cr3, *frame = log(observation)
    assert handler == 2  # the second of the manifest
    assert error_code == 0b100  # a read in user mode of a page that is not present (SDM Vol. 3A, 5.7)
    assert layout.THREAD_STACK.start <= pt_regs < layout.THREAD_STACK.end
    assert gs_base == HOBBY.symbols["cpu0"]
    assert kernel_gs_base == 0x41_0800
    assert cr3 == tables.CR3
    assert frame[17:19] == [layout.USER_CS, frame[18]]


def test_a_fault_goes_on_where_the_recorder_sends_it() -> None:
    observation = observed(HOBBY, "page-fault-from-user")

    assert observation.end is End.ENDED
    assert observation.register("rip") == HOBBY.scenario("page-fault-from-user").registers["rip"] + 0x40 + 2


def test_a_handler_that_the_code_defines_runs_as_it_is() -> None:
    observation = observed(HOBBY, "user-code", Event(3, EventKind.INTERRUPT, 0x20))

    ticks = HOBBY.symbols["ticks"] - DATA_START
    assert observation.memory[tables.FRAMES["kernel_data"]][ticks : ticks + 8] == struct.pack("<Q", 1)


def test_a_kernel_function_is_called_and_its_return_ends_the_run() -> None:
    observation = observed(HOBBY, "kernel-idle")

    assert observation.end is End.ENDED
    assert observation.register("rip") == recorder.RETURN_TO_END + 2


# Small ones


def test_the_machine_has_the_registers_gates_and_stacks_of_the_manifest() -> None:
    target = tiny().target
    registers = target.scenario("system-call-from-user").registers
    assert target.code is not None

    assert registers["lstar"] == SYMBOLS["syscall_entry"]
    assert registers["kernel_gs_base"] == target.code.percpu == SYMBOLS["cpu0"]
    assert {stack.name: stack.end for stack in target.code.stacks} == {"thread": layout.THREAD_STACK.end, "nmi": layout.IRQ_STACK.end}
    assert target.pages[tables.FRAMES["idt"]][2 * 16 : 3 * 16] == tables.gate(SYMBOLS["nmi"], ist=1)
    tss = target.pages[tables.FRAMES["percpu"]][layout.TSS_OFFSET :]
    # SDM Vol. 3A, Figure 8-11: RSP0 at 4, IST1 at 36.
    assert struct.unpack_from("<Q", tss, 4) == (layout.THREAD_STACK.end,)
    assert struct.unpack_from("<Q", tss, 36) == (layout.IRQ_STACK.end,)
    data = target.pages[tables.FRAMES["kernel_data"]]
    assert struct.unpack_from("<Q", data, 8) == (layout.THREAD_STACK.end,)


def test_a_handler_that_stays_is_one_and_a_recorder_takes_the_place_of_another() -> None:
    stays = tiny().target
    taken = tiny(MANIFEST.replace('"exception"', '"exception", recorder = true')).target

    at = SYMBOLS["do_all"] - TEXT_START
    code = taken.pages[tables.FRAMES["kernel_text"]][at : at + 5]
    jump = Decoder(64, code, ip=SYMBOLS["do_all"]).decode()
    assert stays.pages[tables.FRAMES["kernel_text"]][at : at + 5] == b"\xcc" * 5
    assert (jump.mnemonic, jump.near_branch_target) == (Mnemonic.JMP, recorder.stub_address(1))


def test_a_fault_that_nobody_sends_on_is_left_out_with_the_reason() -> None:
    own = tiny()

    assert own.left_out == (
        "page-fault-from-user: do_all is your own code, and only a recorder can send the fault on; set recorder = true",
    )
    assert "page-fault-from-user" not in [each.name for each in own.target.scenarios]


def test_software_interrupts_and_every_exception_with_a_gate_have_a_scenario() -> None:
    gates = "".join(f'{vector} = {{ symbol = "timer" }}\n' for vector in (0, 1, 3, 6, 11, 12, 13, 17))
    text = MANIFEST.replace("[gates]\n", f'[gates]\n{gates}0x80 = {{ symbol = "timer", dpl = 3 }}\n').replace(
        '"exception"', '"exception", recorder = true'
    )

    names = [each.name for each in tiny(text).target.scenarios]

    assert names == [
        "user-code",
        "kernel-code",
        "system-call-from-user",
        "int-0x80-from-user",
        "divide-error-from-user",
        "debug-from-user",
        "int3-from-user",
        "invalid-opcode-from-user",
        "segment-not-present-from-user",
        "stack-segment-from-user",
        "general-protection-from-user",
        "page-fault-from-user",
        "alignment-check-from-user",
    ]


def test_a_handler_outside_of_the_code_is_refused() -> None:
    with pytest.raises(CaseError, match=r"handlers\.do_all: 0xffffffff81180000 is not in the code; a handler has to be"):
        tiny(data=elf(symbols={**SYMBOLS, "do_all": DATA_START}))


def test_the_recorder_is_the_code_that_its_comments_say() -> None:
    """Every byte decodes, jumps stay inside, and only RBX, RBP and R12 to R15, which a C function keeps, are not touched."""
    page = recorder.kernel_code(1, 21)
    start = recorder.TEXT[0] - layout.KERNEL_CODE.start

    instructions = []
    for instruction in Decoder(64, page[start:], ip=recorder.TEXT[0]):
        instructions.append(instruction)
        if instruction.mnemonic == Mnemonic.RET:
            break

    end = instructions[-1].next_ip
    addresses = {each.ip for each in instructions}
    assert end <= recorder.stub_address(1)
    assert all(each.near_branch_target in addresses for each in instructions if each.is_jcc_short_or_near)
    assert not any(each.is_jmp_near for each in instructions)


# The registry


@pytest.fixture
def known() -> Iterator[Target]:
    """The example, known to this process under a name that no other test builds."""
    target = replace(HOBBY, name="own-test")
    registry.register(target)
    yield target
    del registry.TARGETS[target.name]


def test_bytes_and_files_name_somebodys_own_target(known: Target) -> None:
    case = Case(known.name, "system-call-from-user", "amd", events=(Event(1, EventKind.NMI, 2),))

    assert decode(encode(case)) == case
    assert build(case) == builder(known)(case)
    assert parse(str(dump(case)).replace("'", '"'), "case.json") == case


def test_the_number_of_an_own_target_follows_from_its_name_and_ours_stay(known: Target) -> None:
    assert registry.number(known.name) >= 0x80
    assert [registry.number(name) for name in registry.BUILT_IN] == list(range(len(registry.BUILT_IN)))
    assert registry.numbered(registry.number(known.name)) == known.name
    assert registry.own() == (known,)


def test_a_name_that_is_ours_and_one_with_the_same_number_clash(known: Target) -> None:
    twin = next(f"own-{n}" for n in range(10_000) if registry.number(f"own-{n}") == registry.number(known.name))

    assert registry.clash("linux4") == "linux4"
    assert registry.clash(twin) == known.name
    assert registry.clash(known.name) is None
