"""A wrong manifest is refused in one line that names the file, the key and the way out."""

import contextlib
import re

import pytest
from own_examples import MANIFEST, elf, tiny

from fuzzer.case_fields import CaseError
from fuzzer.targets.own.manifest import Manifest, read_manifest
from reference.linux.entry_code import Origin, StackKind

WHOLE = (
    'pt-regs = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi _ rip cs rflags rsp ss"\nbad-return = ["nmi", "timer+0x1"]\n'
    + MANIFEST.replace("[system-calls]\n", "[system-calls]\nsfmask = 0x700\n").replace(
        'origin = "exception"', 'origin = "exception", vector = 14, recorder = false, stacks-from-user = ["thread"], symbol = "do_all"'
    )
    + '\n[interrupted]\nkernel = ["timer"]\n'
)
"""A manifest with every key."""


def changed(old: str, new: str) -> str:
    assert old in MANIFEST
    return MANIFEST.replace(old, new)


def refusal(text: str) -> str:
    with pytest.raises(CaseError) as error:
        tiny(text)
    return str(error.value)


def test_a_manifest_says_what_it_says() -> None:
    manifest: Manifest = read_manifest(MANIFEST, "tiny.toml")

    assert manifest.name == "tiny"
    assert [(gate.vector, gate.symbol.value, gate.ist.value, gate.dpl, gate.type) for gate in manifest.gates] == [
        (2, "nmi", 1, 0, 0xE),
        (14, "page_fault", 0, 0, 0xE),
        (0x30, "timer", 0, 0, 0xE),
    ]
    assert [(stack.name, stack.kind, stack.ist, stack.size) for stack in manifest.stacks] == [
        ("thread", StackKind.THREAD, None, 0x1000),
        ("nmi", StackKind.IST, 1, 0x1000),
    ]
    assert [(handler.name, handler.origin, handler.vector) for handler in manifest.handlers] == [("do_all", Origin.EXCEPTION, None)]
    assert manifest.kinds == ("interrupt:0x30", "nmi")


def test_without_a_gate_for_it_an_event_is_not_tried() -> None:
    text = changed("2 = {", "18 = {").replace("0x30 = {", "0x80 = { dpl = 3,")

    assert read_manifest(text, "tiny.toml").kinds == ("mce",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("[gates]", "[gates", "at the end of a table declaration (at line 16, column 7); a manifest is TOML"),
        pytest.param("[percpu]", "[per-cpu]", 'tiny.toml: per-cpu: unknown field; did you mean "percpu"?'),
        pytest.param('name = "tiny"', "", "tiny.toml: name: it is missing; write small letters"),
        pytest.param('"tiny"', '"Tiny Kernel"', 'tiny.toml: name: "Tiny Kernel" is not a name; write small letters'),
        pytest.param(
            '"syscall_entry"',
            '"syscal_entry"',
            'tiny.toml: system-calls.syscall: tiny.elf has no symbol "syscal_entry"; did you mean "syscall_entry"?',
        ),
        pytest.param('"timer"', '"xyz"', 'tiny.toml: gates.0x30.symbol: tiny.elf has no symbol "xyz"; nm lists those it has'),
        pytest.param("14 = {", "0x30 = {", "Cannot overwrite a value"),
        pytest.param("14 = {", "48 = {", "tiny.toml: gates.0x30: vector 48 is given twice, as 48 and 0x30; drop one"),
        pytest.param("14 = {", "256 = {", 'tiny.toml: gates.256: "256" is not a vector; write 14 or 0xe'),
        pytest.param("14 = {", "0xf1 = {", "tiny.toml: gates.0xf1: vector 0xf1 ends the run; take another"),
        pytest.param('14 = { symbol = "page_fault" }', "14 = {}", 'tiny.toml: gates.14: "symbol" is missing: where the gate leads'),
        pytest.param(
            '"page_fault" }',
            '"page_fault", ist = 3 }',
            'tiny.toml: gates.14.ist: no stack has slot 3; write [stacks.NAME] kind = "ist", ist = 3',
        ),
        pytest.param(
            '"page_fault" }',
            '"page_fault", type = "task" }',
            'tiny.toml: gates.14.type: there is no type of gate "task"; known: interrupt, trap',
        ),
        pytest.param('"page_fault" }', '"page_fault", dpl = 4 }', "tiny.toml: gates.14.dpl: 4 is not a 2-bit number"),
        pytest.param("ist = 1 }\n\n", "ist = 0 }\n\n", "tiny.toml: stacks.nmi.ist: there is no slot 0; use 1 to 7"),
        pytest.param(
            '{ kind = "ist", ist = 1 }',
            '{ kind = "ist" }',
            'tiny.toml: stacks.nmi: "ist" is missing: the slot of the interrupt stack table, 1 to 7',
        ),
        pytest.param(
            '{ kind = "ist", ist = 1 }',
            '{ kind = "interrupt", ist = 1 }',
            'tiny.toml: stacks.nmi.ist: only a stack of kind "ist" has a slot; drop one of both',
        ),
        pytest.param(
            "nmi = { kind",
            'other = { kind = "ist", ist = 1 }\nnmi = { kind',
            "tiny.toml: stacks.nmi.ist: slot 1 is other's already; take another",
        ),
        pytest.param(
            'thread = { kind = "thread"',
            'thread = { kind = "interrupt"',
            'tiny.toml: stacks: there has to be one stack of kind "thread", which RSP0 points to',
        ),
        pytest.param("size = 0x1000", "size = 0x1008", "tiny.toml: stacks.thread.size: 0x1008 is not a size; write a multiple of 16"),
        pytest.param("size = 0x1000", "size = 0x100000", "tiny.toml: stacks.thread: the machine's thread stack has "),
        pytest.param(
            "ist = 1 }\n\n",
            "ist = 1, size = 0x10000 }\n\n",
            "tiny.toml: stacks.nmi: the machine has no stack of 0x10000 bytes left to give; put it into your data",
        ),
        pytest.param(
            "ist = 1 }\n\n",
            'ist = 1, top = "cpu0+0x1000", size = 0x1010 }\n\n',
            "tiny.toml: stacks.nmi.top: 0xffffffff8117fff0-0xffffffff81180fff lies outside of the code's data",
        ),
        pytest.param(
            "size = 0x1000 }",
            'size = 0x800, top = "cpu0+0x1000" }\nirq = { kind = "interrupt", size = 0x800, top = "cpu0+0x900" }',
            "tiny.toml: stacks.irq: 0xffffffff81180100-0xffffffff811808ff overlaps the stack thread; move one or make it smaller",
        ),
        pytest.param("size = 0x1000", "size = 2026-01-01", 'tiny.toml: stacks.thread.size: "2026-01-01" is not a 64-bit hex number'),
        pytest.param('"cpu0"', '"nmi"', "tiny.toml: percpu.base: 0xffffffff81000010 lies in no memory that can be written"),
        pytest.param(
            '"cpu0+8"', '"nmi+8"', "tiny.toml: memory.nmi+8: 0xffffffff81000018 is no word of the code's data or of the per-CPU page"
        ),
        pytest.param('"cpu0+8"', '"cpu0+x"', 'tiny.toml: memory.cpu0+x: "x" is no offset; write "cpu0+8" or "cpu0+0x8"'),
        pytest.param(
            '"cpu0+8"',
            '"0xffff888000010204"',
            "tiny.toml: memory.0xffff888000010204: 0xffff888000010204 overlaps the TSS, which [stacks] fills",
        ),
        pytest.param('"cpu0+8" = "thread"', '"cpu0+8" = "threat"', 'tiny.toml: memory.cpu0+8: tiny.elf has no symbol "threat"'),
        pytest.param(
            'origin = "exception"',
            'origin = "fault"',
            'tiny.toml: handlers.do_all.origin: there is no origin "fault"; known: exception, nmi, ',
        ),
        pytest.param(
            '"exception"',
            '"exception", stacks-from-user = ["tread"]',
            'tiny.toml: handlers.do_all.stacks-from-user[0]: there is no stack "tread"; did you mean "thread"?',
        ),
        pytest.param(
            "do_all = {",
            'again = { symbol = "do_all", origin = "exception" }\ndo_all = {',
            "tiny.toml: handlers.do_all: 0xffffffff81000040 is again already; name it once",
        ),
        pytest.param('do_all = { origin = "exception" }', "", "tiny.toml: no [handlers]: the contract is judged where a C handler begins"),
    ],
)
def test_a_mistake_is_told_in_one_line(old: str, new: str, message: str) -> None:
    told = refusal(changed(old, new))

    assert message in told
    assert told.startswith("tiny.toml: ")
    assert "\n" not in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param("rax rip cs rflags rsp ss", '"r15" is missing: the contract looks at every general register', id="too-few"),
        pytest.param("rax rip cs rflags ss rsp", "it has to end with what the processor pushes: rip cs rflags rsp ss", id="wrong-frame"),
        pytest.param("rax rax rip cs rflags rsp ss", '"rax" stands in it twice; drop one, or write _ for a word', id="twice"),
        pytest.param("eax rip cs rflags rsp ss", 'word 0 is "eax"; did you mean "rax"?', id="unknown"),
        pytest.param(
            "_ _ _ _ r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi _ rip cs rflags rsp ss",
            "25 words; a record has",
            id="too-many",
        ),
    ],
)
def test_the_order_of_pt_regs_is_checked(words: str, message: str) -> None:
    told = refusal(f'pt-regs = "{words}"\n{MANIFEST}')

    assert told.startswith(f"tiny.toml: pt-regs: {message}")


def test_a_manifest_without_a_way_in_is_refused() -> None:
    text = re.sub(r"(?m)^(syscall|2|14|0x30) = .*\n", "", MANIFEST)

    assert refusal(text).startswith("tiny.toml: no way in: name one by [gates] 14 = ")


def test_all_slots_of_the_interrupt_stack_table_cannot_be_taken() -> None:
    others = "".join(f'ist{slot} = {{ kind = "ist", ist = {slot}, size = 16, top = "cpu0+{32 * slot}" }}\n' for slot in range(2, 8))

    assert "leave one to the end of the run" in refusal(changed("nmi = {", others + "nmi = {"))


def test_a_handler_too_short_for_a_recorder_is_refused() -> None:
    with pytest.raises(CaseError, match=r"handlers\.do_all: it has 1 bytes, and the jump to the recorder 5; make it longer"):
        tiny(changed('"exception"', '"exception", recorder = true'), elf(sizes={"do_all": 1}))


ODD = (
    '""',
    "0",
    "-1",
    "1.5",
    "nan",
    "true",
    "[]",
    '["a", 1]',
    "{}",
    "2026-01-01",
    '"a+b+c"',
    '"0x"',
    "{ a = { b = 1 } }",
    "0xffffffffffffffff",
)
PLACES = [match.span(1) for match in re.finditer(r'(?<== )("[^"]*"|0x\w+|\d+|\{.*\})', WHOLE)]


@pytest.mark.parametrize("literal", ODD)
@pytest.mark.parametrize("span", PLACES, ids=[WHOLE[start:end] for start, end in PLACES])
def test_an_odd_value_anywhere_is_accepted_or_refused_and_never_a_traceback(span: tuple[int, int], literal: str) -> None:
    text = WHOLE[: span[0]] + literal + WHOLE[span[1] :]

    if not accepted(text):
        told = refusal(text)
        assert re.match(r"tiny\.(toml|elf): ", told)
        assert "\n" not in told


def accepted(text: str) -> bool:
    with contextlib.suppress(CaseError):
        return bool(tiny(text).target.scenarios)
    return False
