"""What stands between bytes and rules: operands, names and what has no rule."""

from __future__ import annotations

import pytest
from iced_x86 import Code, Decoder, Mnemonic
from reference_machine import image, outcome, run

from reference.boot import boot
from reference.decode import Dialect, InvalidEncoding, Truncated, decode
from reference.faults import NotModelled, exception_name, vector_name
from reference.instructions import AROUND_TS, BY_CODE, BY_MNEMONIC, NAMES, lookup
from reference.instructions.table32 import BY_CODE_32, BY_MNEMONIC_32
from reference.operands import Operand

INTEL = Dialect(amd=False, bits=64)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        pytest.param("0f58c1", "addps", id="vector-instruction"),
        pytest.param("f20f10c1", "movsd", id="vector-movsd"),
        pytest.param("d9c0", "fld", id="x87"),
        pytest.param("a6", "cmpsb", id="string-comparison"),
        pytest.param("660ff7c1", "maskmovdqu", id="implicit-destination"),
        pytest.param("6e", "outsb", id="output"),
        pytest.param("e2fe", "loop", id="loop"),
        pytest.param("0fc8", "bswap", id="bswap"),
    ],
)
def test_what_has_no_rule_ends_the_case_by_name(code: str, name: str) -> None:
    assert outcome(run(code)) == f"not modelled: {name}"


def test_an_operand_of_no_known_kind_can_neither_be_read_nor_written() -> None:
    machine = boot(image())

    with pytest.raises(NotImplementedError):
        Operand(16).read(machine)
    with pytest.raises(NotImplementedError):
        Operand(16).write(machine, 0)


def test_bytes_that_are_no_instruction_and_bytes_that_end_inside_one() -> None:
    with pytest.raises(InvalidEncoding):
        decode(b"\x06" + bytes(14), INTEL, lookup)
    with pytest.raises(Truncated):
        decode(b"\x48\xb8\x00", INTEL, lookup)
    with pytest.raises(NotModelled):
        decode(b"\x66" * 15, INTEL, lookup)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("cb", "retf"),
        ("48cb", "retfq"),
        ("66cb", "retfw"),
        ("66c8100000", "enterw"),
        ("66c9", "leavew"),
        ("c9", "leave"),
        ("48a5", "movsq"),
    ],
)
def test_forms_that_differ_in_size_have_names_of_their_own(code: str, name: str) -> None:
    assert decode(bytes.fromhex(code), INTEL, lookup).name == name


def test_every_row_of_the_table_is_an_instruction_that_exists() -> None:
    codes = {value for value in vars(Code).values() if isinstance(value, int)}

    assert set(BY_MNEMONIC) | set(AROUND_TS) | set(BY_MNEMONIC_32) <= set(NAMES)
    assert set(BY_CODE) | set(BY_CODE_32) <= codes
    assert NAMES[Mnemonic.SWAPGS] == "swapgs"


def test_a_form_with_a_rule_of_its_own_does_not_take_its_mnemonics() -> None:
    to_segment = Decoder(64, bytes.fromhex("8ed8")).decode()
    plain = Decoder(64, bytes.fromhex("89d8")).decode()

    assert lookup(to_segment)[0] is not lookup(plain)[0]


@pytest.mark.parametrize(("vector", "name"), [(0, "#DE"), (2, "NMI"), (13, "#GP"), (9, "vector 0x9"), (0x72, "vector 0x72")])
def test_names_of_vectors(vector: int, name: str) -> None:
    assert vector_name(vector) == name


def test_names_of_exceptions_have_their_error_code() -> None:
    assert [exception_name(13, 0x10), exception_name(6, None)] == ["#GP(0x10)", "#UD"]


@pytest.mark.parametrize("prefix", ["66", "f2", "f3"])
def test_what_amd_makes_of_a_prefix_before_stac_is_open(prefix: str) -> None:
    code = bytes.fromhex(prefix + "0f01cb")

    with pytest.raises(NotModelled):
        decode(code, Dialect(amd=True, bits=64), lookup)
    with pytest.raises(InvalidEncoding):
        decode(code, Dialect(amd=False, bits=64), lookup)
