"""What the views make of values: names, flags, frames, and the way a run took."""

import json
from typing import Any

import pytest
from rich.console import Console, RenderableType

from entryfuzz.disassembly import Symbols
from entryfuzz.path import frame_words, walk
from entryfuzz.views import text
from entryfuzz.views.route import Parting, route
from entryfuzz.views.start import arrivals, start_state
from entryfuzz.views.states import EndStates, end_states
from entryfuzz.views.words import word_name
from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.case_json import parse
from fuzzer.targets.registry import TARGETS
from reference.trace import trace


def printed(view: RenderableType) -> str:
    console = Console(width=200, markup=False, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(view)
    return captured.get()


def case_of(**fields: Any) -> Case:
    return parse(json.dumps(fields), "case.json")


def symbols_of(case: Case) -> Symbols:
    return Symbols(TARGETS[case.target].symbols)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0x246, "0x246 [PF ZF IF]"), (0x3002, "0x3002 [IOPL=3]"), (2, "0x2 []"), (0x10302, "0x10302 [TF IF RF]")],
)
def test_rflags_are_spelled_by_flag_names(value: int, shown: str) -> None:
    assert text.register("rflags", value) == shown
    assert text.register("#GP frame: RFLAGS", value) == shown


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("log+0x0", "record 0: handler"),
        ("log+0x128", "record 1: gs_base"),
        ("log+0xe0", "record 0: pt_regs.ss"),
        ("control+0x0", "cursor"),
        ("percpu+0x18", "rsp_scratch"),
        ("percpu+0x200", "TSS.rsp0"),
        ("percpu+0x208", "TSS.rsp0 and TSS.rsp1"),
        ("user_data+0x10", ""),
    ],
)
def test_words_that_the_target_keeps_have_names(place: str, name: str) -> None:
    assert word_name(place, {}, "linux4") == name


def test_the_words_of_a_pushed_frame_have_names() -> None:
    case = case_of(scenario="user", registers={"rax": "0x63"}, code="8e c0", descriptors={"gdt": {"0x60": {"present": False}}})
    image = build(case)

    names = frame_words(image, walk(image, trace(image), symbols_of(case)))

    assert names["thread_stack+0x1fd0"] == "#NP frame: error code"
    assert names["thread_stack+0x1fd8"] == "#NP frame: RIP"
    assert names["thread_stack+0x1ff8"] == "#NP frame: SS"


def test_the_frame_under_an_event_that_arrives_at_once_is_named_too() -> None:
    events = [{"boundary": 0, "kind": "nmi"}, {"boundary": 0, "kind": "interrupt", "vector": 32}]
    case = case_of(scenario="user", code="90", events=events)
    image = build(case)

    names = frame_words(image, walk(image, trace(image), symbols_of(case)))

    assert {name.partition(" frame")[0] for name in names.values()} == {"NMI", "vector 0x20"}


def test_the_path_marks_arrivals_and_the_divergent_step() -> None:
    case = case_of(scenario="user", code="90 f8 f9", events=[{"boundary": 1, "kind": "nmi"}])
    image = build(case)
    path = walk(image, trace(image), symbols_of(case))

    lines = printed(route(path, arrivals(case), Parting(3, "unicorn: raises #UD"), symbols_of(case))).splitlines()

    assert "nop" in lines[0]
    assert "NMI becomes pending here" in lines[1]
    assert "delivers NMI" in lines[2]
    assert "iretq" in lines[3]
    assert lines[4].startswith("▶")
    assert "clc" in lines[4]
    assert "unicorn: raises #UD" in lines[5]


def test_a_long_path_is_cut_around_what_matters() -> None:
    case = case_of(target="linux4", scenario="system-call-from-user")
    image = build(case)
    path = walk(image, trace(image), symbols_of(case))

    lines = printed(route(path, [(2, "NMI")], Parting(60, "unicorn: completes"), symbols_of(case))).splitlines()

    assert len(path) > 70
    assert len(lines) < 30
    assert any("⋮" in line for line in lines)
    assert sum(line.startswith("▶") for line in lines) == 1


def test_an_event_after_the_end_is_said_to_be_one() -> None:
    case = case_of(scenario="user", code="90", events=[{"boundary": 900, "kind": "nmi"}])
    image = build(case)

    assert "would become pending after the end" in printed(
        route(walk(image, trace(image), symbols_of(case)), arrivals(case), None, symbols_of(case))
    )


def test_the_start_state_highlights_what_the_case_sets() -> None:
    descriptors = {
        "gdt": {"0x2b": {"present": False}},
        "gates": {"14": {"ist": 3}},
        "tss": {"rsp0": 16},
        "pages": {"0x410000": {"writable": False}},
    }
    case = case_of(scenario="user", registers={"gs_base": 0}, code="0f 01 f8", descriptors=descriptors)

    shown = printed(start_state(case))

    assert "* gs_base        0x0  (scenario: 0x410800)" in shown
    assert "user_code: swapgs" in shown
    assert "gate 0x0e: handler_0x0e, selector 0x10, IST 3" in shown
    assert "GDT entry 0x28: base 0x0, limit 0xfffff, type 0x3, DPL 3, granularity big" in shown
    assert "TSS.rsp0 = 0x10" in shown
    assert "page 0x410000 (user_data): present user accessed dirty no_execute" in shown


def test_a_frame_in_memory_is_shown_as_words() -> None:
    case = case_of(scenario="kernel", memory={"thread_stack+0x1f00": "00 00 11 81 ff ff ff ff 33 00 00 00 00 00 00 00"})

    assert "words 0xffffffff81110000 0x33" in printed(start_state(case))


def observed(**changes: Any) -> dict[str, Any]:
    return {"end": "ended", "registers": {"rip": "0x1", "rflags": "0x2"}, "fault": None, "memory": {}, "detail": "", **changes}


def test_only_what_differs_after_tolerances_is_marked() -> None:
    states = EndStates(
        target="snippets",
        start={"rip": 0, "rflags": 2},
        spec=observed(memory={"thread_stack+0x0": "0x1", "user_data+0x0": "0x1"}),
        cores={"unicorn": observed(registers={"rip": "0x2", "rflags": "0x12"}, memory={"thread_stack+0x0": "0x3", "user_data+0x0": "0x1"})},
        differing={"unicorn": {"rip", "memory:thread_stack+0x0"}},
        frames={"thread_stack+0x0": "#GP frame: RFLAGS"},
    )

    shown = printed(end_states(states))

    marked = [line for line in shown.splitlines() if line.startswith("≠")]
    assert [line.split()[1] for line in marked] == ["rip", "thread_stack+0x0"]
    assert "#GP frame: RFLAGS" in marked[1]
    assert "1 words of memory changed alike" in shown


def test_a_core_that_crashed_has_no_registers() -> None:
    states = EndStates(
        "snippets",
        {"rip": 0},
        observed(),
        {"unicorn": observed(end="core-crashed", registers={}, detail="signal 11")},
        {"unicorn": {"end"}},
    )

    assert "≠ core-crashed: signal 11" in printed(end_states(states))
