"""Case files: what a person writes, the case it means, and the line that says what is wrong with it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzer.build import build
from fuzzer.case import Case, canonical, decode
from fuzzer.case_json import SCHEMA, CaseError, dump, parse
from fuzzer.targets import layout, tables
from fuzzer.targets.target import Patch
from reference.image import Event, EventKind

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.json"))


def case_of(**fields: Any) -> Case:
    return parse(json.dumps({"scenario": "user", **fields}), "case.json")


def word(case: Case, region: str, offset: int) -> int:
    page = build(case).pages[tables.FRAMES[region] + offset // layout.PAGE]
    return int.from_bytes(page[offset % layout.PAGE :][:8], "little")


def byte_strings() -> st.SearchStrategy[bytes]:
    """Heads, then records of all three kinds: plain random bytes seldom hold a whole one."""
    register = st.binary(min_size=9, max_size=9).map(lambda body: b"\0" + body)
    patch = st.tuples(st.binary(min_size=3, max_size=3), st.binary(max_size=40)).map(lambda p: b"\1" + p[0] + bytes([len(p[1])]) + p[1])
    event = st.binary(min_size=4, max_size=4).map(lambda body: b"\2" + body)
    return st.builds(lambda head, records: head + b"".join(records), st.binary(min_size=3, max_size=3), st.lists(register | patch | event))


def anything() -> st.SearchStrategy[Any]:
    """Any JSON, with the names of fields where they can do harm."""
    names = [*SCHEMA["properties"], "gdt", "gates", "tss", "pages", "rax", "0x2b", "boundary", "kind"]
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(names) | st.text(), inner))


class TestRoundTrip:
    @given(byte_strings() | st.binary(max_size=200))
    @settings(max_examples=300, deadline=None)
    def test_every_case_has_a_file_that_means_it(self, data: bytes) -> None:
        case = decode(data)

        file = json.loads(json.dumps(dump(case)))

        assert parse(json.dumps(file), "dumped") == case
        VALIDATOR.validate(file)

    def test_a_place_that_comes_again_is_dumped_as_a_list(self) -> None:
        pieces = (Patch("gdt", 0x28, b"\1"), Patch("gdt", 0x28, b"\2"))
        case = canonical(Case("snippets", "user", "intel", memory=pieces))

        assert dump(case)["memory"] == [{"at": "gdt+0x28", "bytes": "01"}, {"at": "gdt+0x28", "bytes": "02"}]

    def test_code_at_rip_is_dumped_as_code_without_its_end(self) -> None:
        assert dump(case_of(code="0f 01 f8"))["code"] == "0f 01 f8"


class TestExamples:
    @pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
    def test_an_example_fits_the_schema_and_is_a_case(self, file: Path) -> None:
        text = file.read_text()

        VALIDATOR.validate(json.loads(text))

        assert parse(json.dumps(dump(parse(text, file.name))), "again") == parse(text, file.name)

    def test_there_are_examples(self) -> None:
        assert len(EXAMPLES) >= 5

    def test_the_schema_is_one(self) -> None:
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_every_field_of_the_schema_is_described(self) -> None:
        assert [name for name, field in SCHEMA["properties"].items() if not field.get("description")] == []


class TestMeaning:
    def test_a_case_without_differences_is_the_scenario_itself(self) -> None:
        assert case_of() == Case("snippets", "user", "intel")

    def test_code_begins_at_rip_and_the_end_follows_it(self) -> None:
        assert case_of(code="0f01f8").memory == (Patch("user_code", 0, bytes.fromhex("0f01f8cdf1")),)

    def test_code_begins_at_the_rip_that_the_case_sets(self) -> None:
        assert case_of(registers={"rip": "0x400100"}, code="90").memory[0].offset == 0x100

    def test_end_false_leaves_the_end_out(self) -> None:
        assert case_of(code="ebfe", end=False).memory == (Patch("user_code", 0, bytes.fromhex("ebfe")),)

    def test_code_at_addresses_ends_each_piece(self) -> None:
        case = case_of(code={"0x400000": "90", "kernel_code+0x10": "91"})

        assert case.memory == (Patch("user_code", 0, b"\x90\xcd\xf1"), Patch("kernel_code", 0x10, b"\x91\xcd\xf1"))

    def test_memory_longer_than_a_piece_is_cut(self) -> None:
        case = case_of(memory={"user_data": "11" * 300})

        assert [(piece.offset, len(piece.data)) for piece in case.memory] == [(0, 255), (255, 45)]

    def test_numbers_may_be_numbers_decimal_or_hex(self) -> None:
        registers = case_of(registers={"rax": 18, "rbx": "18", "rcx": "0x1_2"}).registers

        assert dict(registers) == {"rax": 18, "rbx": 18, "rcx": 18}

    def test_an_nmi_needs_no_vector(self) -> None:
        assert case_of(events=[{"boundary": 3, "kind": "nmi"}]).events == (Event(3, EventKind.NMI, 2),)

    def test_a_note_changes_nothing(self) -> None:
        assert case_of(note="why").digest == case_of().digest


class TestTables:
    def test_a_descriptor_keeps_what_is_not_named(self) -> None:
        case = case_of(descriptors={"gdt": {"0x2b": {"present": False}}})

        assert word(case, "gdt", 0x28) == word(case_of(), "gdt", 0x28) & ~(1 << 47)

    def test_every_field_of_a_descriptor_has_its_place(self) -> None:
        fields = {
            "base": "0x12345678", "limit": "0xabcde", "type": 9, "dpl": 2, "present": True,
            "system": False, "granularity": False, "big": False, "long": True, "available": True,
        }  # fmt: skip

        expected = tables.segment(9, 2, base=0x12345678, limit=0xABCDE, flags=0b0011)

        assert word(case_of(descriptors={"gdt": {"0xd8": fields}}), "gdt", 0xD8) == expected

    def test_a_system_descriptor_has_a_base_of_64_bits(self) -> None:
        case = case_of(descriptors={"gdt": {"0x40": {"base": "0x1122334455667788"}}})

        assert word(case, "gdt", 0x48) == 0x11223344

    def test_an_ldt_selector_has_its_table_bit(self) -> None:
        case = case_of(descriptors={"ldt": {"0x0f": {"dpl": 0}}})

        assert word(case, "ldt", 8) == word(case_of(), "ldt", 8) & ~(3 << 45)

    def test_a_gate_names_its_handler_by_symbol(self) -> None:
        case = case_of(descriptors={"gates": {"14": {"symbol": "handler_0x0d", "ist": 3, "dpl": 3, "type": "0xf", "present": False}}})

        expected = tables.gate(0xFFFF_FFFF_8100_00D0, ist=3, dpl=3, type_=0xF, present=False)

        assert word(case, "idt", 14 * 16).to_bytes(8, "little") + word(case, "idt", 14 * 16 + 8).to_bytes(8, "little") == expected

    def test_the_stack_pointers_of_the_tss_are_set_by_name(self) -> None:
        case = case_of(descriptors={"tss": {"rsp0": 7, "ist7": 9}})

        assert word(case, "percpu", layout.TSS_OFFSET + 4) == 7
        assert word(case, "percpu", layout.TSS_OFFSET + 28 + 56) == 9

    def test_the_rights_of_a_page_are_set_by_address(self) -> None:
        case = case_of(descriptors={"pages": {"0x411008": {"present": False, "no_execute": False}}})

        offset = tables.entry_offset(0x411000)
        assert word(case, "page_tables", offset) == tables.leaf_entry(0x411000) & ~tables.PRESENT & ~tables.NO_EXECUTE

    def test_changes_join_those_of_the_scenario(self) -> None:
        change = {"handler": "do_divide_error", "field": "rflags", "value": 2}
        case = case_of(target="linux4", scenario="divide-error-from-user", changes=[change])

        assert word(case, "control", 0x10) == 2
        assert word(case, "control", 0x38) == 2


REFUSED = [
    ('{"scenario": "user",}', "line 1, column"),
    ("[]", "[] is not an object; a case file begins with {"),
    ("{}", "scenario: missing"),
    ('{"scenario": "usr"}', 'scenario: there is no scenario "usr"; did you mean "user"?'),
    ('{"scenario": "user", "target": "linux5"}', 'target: there is no target "linux5"; did you mean "linux4"?'),
    ('{"scenario": "user", "profile": 7}', "profile: 7 is not a string"),
    ('{"scenario": "user", "regs": {}}', 'regs: unknown field; did you mean "registers"?'),
    ('{"scenario": "user", "scenario": "user"}', '"scenario" is given twice'),
    ('{"scenario": "user", "note": 7}', "note: 7 is not a string"),
    ('{"scenario": "user", "registers": {"rsp": "0x12g"}}', 'registers.rsp: "0x12g" is not a 64-bit hex number'),
    ('{"scenario": "user", "registers": {"rax": 1.5}}', "registers.rax: 1.5 is not a 64-bit number"),
    ('{"scenario": "user", "registers": {"rax": true}}', "registers.rax: true is not a 64-bit number"),
    ('{"scenario": "user", "registers": {"rax": -1}}', "registers.rax: -1 is not a 64-bit number; it must lie in 0"),
    ('{"scenario": "user", "registers": {"rax": 1' + "0" * 5000 + "}}", "a number has thousands of digits"),
    ('{"scenario": "user", "registers": {"rps": 1}}', 'registers.rps: no such register; did you mean "rsp"?'),
    ('{"scenario": "user", "registers": {"cs": 16}}', "registers.cs: belongs to the target"),
    (
        '{"scenario": "user", "registers": {"cr4": "0x40000"}}',
        "registers.cr4: 0x40000 cannot be held by this register on profile intel at CPL 3; nearest is 0x220",
    ),
    ('{"scenario": "user", "registers": {"gs_base": "0x800000000000"}}', "nearest is 0xffff800000000000"),
    ('{"scenario": "user", "code": "0f0"}', 'code: "0f0" is not a row of hex bytes'),
    ('{"scenario": "user", "end": false}', "end: says whether"),
    ('{"scenario": "user", "code": "", "end": false}', "code: no bytes"),
    ('{"scenario": "user", "code": {"0x1000": "90"}}', 'code.0x1000: "0x1000" is not an address that the machine maps'),
    ('{"scenario": "user-edge", "code": "' + "90" * 63 + '"}', '"end": false leaves out'),
    ('{"scenario": "user", "memory": {"gdt+0xfff": "0000"}}', "memory.gdt+0xfff: 2 bytes from gdt+0xfff end past the region"),
    ('{"scenario": "user", "memory": {"gtd": "00"}}', 'memory.gtd: "gtd" is neither an address nor a region; did you mean "gdt"?'),
    ('{"scenario": "user", "memory": {"gdt+0x1000": "00"}}', '"0x1000" is not an offset below 0x1000'),
    ('{"scenario": "user", "memory": [{"at": "gdt"}]}', 'memory[0]: "bytes" is missing'),
    ('{"scenario": "user", "memory": {"user_data": "' + "00" * 8192 + '"}}', "33 pieces of code, memory, descriptors and changes"),
    ('{"scenario": "user", "events": {}}', "events: {} is not a list"),
    ('{"scenario": "user", "events": [{"boundary": 0, "kind": "fault"}]}', 'events[0].kind: there is no kind "fault"'),
    ('{"scenario": "user", "events": [{"boundary": 1024, "kind": "nmi"}]}', "events[0].boundary: 1024 is past the last boundary, 1023"),
    ('{"scenario": "user", "events": [{"boundary": 0, "kind": "interrupt"}]}', 'events[0]: "vector" is missing'),
    (
        '{"scenario": "user", "events": [{"boundary": 0, "kind": "interrupt", "vector": 14}]}',
        "14 is not a vector of interrupt; nearest is 46",
    ),
    ('{"scenario": "user", "events": [{"boundary": 0, "kind": "nmi"}, {"boundary": 0, "kind": "nmi"}]}', "events[1]: the same as"),
    ('{"scenario": "user", "events": [' + ", ".join(f'{{"boundary": {n}, "kind": "nmi"}}' for n in range(5)) + "]}", "a case holds 4"),
    ('{"scenario": "user", "descriptors": {"gdt": {"0x2f": {}}}}', "descriptors.gdt.0x2f: selector 0x2f names the LDT (bit 2)"),
    ('{"scenario": "user", "descriptors": {"gdt": {"user": {}}}}', '"user" is not a selector'),
    ('{"scenario": "user", "descriptors": {"gdt": {"8": {"dpl": 4}}}}', "descriptors.gdt.8.dpl: 4 is not a 2-bit number"),
    ('{"scenario": "user", "descriptors": {"gates": {"300": {}}}}', '"300" is not a vector'),
    ('{"scenario": "user", "descriptors": {"gates": {"3": {"symbol": "foo"}}}}', 'snippets has no symbol "foo"'),
    ('{"scenario": "user", "descriptors": {"tss": {"rsp3": 0}}}', "descriptors.tss.rsp3: unknown field"),
    ('{"scenario": "user", "descriptors": {"pages": {"0x1000": {}}}}', '"0x1000" is not an address that the machine maps'),
    ('{"scenario": "user", "changes": []}', "changes: only the handlers of target linux4"),
    (
        '{"target": "linux4", "scenario": "general-protection-from-user", "changes": [{"handler": "do_nmi", "field": "rip", "value": 1}]}',
        "changes[0].handler: the scenario changes do_general_protection",
    ),
    ('{"target": "linux4", "scenario": "int3-from-user", "changes": [{"field": "eax", "value": 1}]}', 'no field of pt_regs "eax"'),
    ('{"scenario": "user", "a\\nb": 1}', "a b: unknown field"),
]


class TestRefusals:
    @pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
    def test_a_wrong_file_is_refused_in_one_line_that_names_the_field(self, text: str, message: str) -> None:
        with pytest.raises(CaseError) as caught:
            parse(text, "case.json")

        said = str(caught.value)
        assert said.startswith("case.json: ")
        assert message in said
        assert "\n" not in said

    @given(anything())
    @settings(max_examples=300, deadline=None)
    def test_whatever_stands_in_a_file_is_a_case_or_a_case_error(self, value: Any) -> None:
        file = {"scenario": "user", **value} if isinstance(value, dict) else value
        with suppress(CaseError):
            parse(json.dumps(file), "case.json")
