"""Reading ELF files, and where their segments may lie."""

from random import Random

import pytest
from own_examples import HOBBY, SYMBOLS, TEXT, elf, tiny

from fuzzer.case_fields import CaseError
from fuzzer.targets import layout, tables
from fuzzer.targets.own.placement import DATA_START, TEXT_START
from fuzzer.targets.own.program import is_relocatable, read_program, undefined

PAGE = 4096


def test_a_program_has_segments_and_symbols() -> None:
    program = read_program(elf(sizes={"nmi": 7}), "tiny.elf")

    assert [(each.address, each.size) for each in program.segments] == [(TEXT_START, len(TEXT)), (DATA_START, 0x100)]
    assert program.symbols == SYMBOLS
    assert program.sizes["nmi"] == 7


def test_a_segment_stands_in_memory_where_it_is_linked_to_with_zeros_behind_its_bytes() -> None:
    data = bytes(range(1, 17))

    pages = tiny(data=elf(((TEXT_START, TEXT, len(TEXT)), (DATA_START + PAGE - 16, data, 32)))).target.pages

    assert pages[tables.FRAMES["kernel_text"]].startswith(TEXT)
    assert pages[tables.FRAMES["kernel_data"]].endswith(data)
    assert pages[tables.FRAMES["kernel_data"] + 1].startswith(bytes(16))


def test_data_is_mapped_near_the_code_writable_and_not_executable() -> None:
    target = tiny().target

    offset = tables.entry_offset(TEXT_START) + 8 * (DATA_START - TEXT_START) // PAGE
    page = target.pages[tables.FRAMES["page_tables"] + offset // PAGE]
    entry = int.from_bytes(page[offset % PAGE : offset % PAGE + 8], "little")
    # SDM Vol. 3A, Table 5-20: P, R/W and not U/S, XD; the frame in bits 12 and up.
    assert entry & 7 == 0b011
    assert entry >> 63 == 1
    assert (entry >> 12 & 0xFFFF_FFFF) == tables.FRAMES["kernel_data"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\x7fELF" + bytes(8), "tiny.elf: not an ELF file that can be read", id="cut-off"),
        pytest.param(elf(machine=183), "tiny.elf: made for EM_AARCH64 with 64 bits; entry code is x86-64", id="another-machine"),
        pytest.param(
            elf(kind=3), "tiny.elf: not linked to fixed addresses (ET_DYN); link it with -static -no-pie", id="position-independent"
        ),
        pytest.param(elf(()), "tiny.elf: nothing to load: it has no PT_LOAD segment", id="no-segments"),
        pytest.param(
            elf(symbols={}), "tiny.elf: no symbols, and the manifest names code by them; give a file that was not stripped", id="stripped"
        ),
        pytest.param(
            elf(((0x40_0000, b"\x90", 1),)),
            "tiny.elf: the segment 0x400000-0x400000 lies outside of code (0xffffffff81000000-",
            id="elsewhere",
        ),
        pytest.param(elf(((TEXT_START, TEXT, layout.KERNEL_TEXT.size + 1),)), "lies outside of code", id="too-long"),
        pytest.param(
            elf(((TEXT_START, TEXT, 0x50), (TEXT_START + 0x4F, TEXT, 0x50))),
            "tiny.elf: the segment 0xffffffff81000000-0xffffffff8100004f and the segment 0xffffffff8100004f-0xffffffff8100009e overlap",
            id="overlap",
        ),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(CaseError) as error:
        tiny(data=data)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_object_file_tells_what_it_does_not_define() -> None:
    data = elf((), {"here": 0}, kind=1, undefined=("do_b", "do_a"))

    assert is_relocatable(data, "tiny.o")
    assert undefined(data, "tiny.o") == ["do_a", "do_b"]


def test_a_damaged_file_is_read_or_refused_and_never_a_traceback() -> None:
    whole, rng, refused = (HOBBY / "hobby.elf").read_bytes(), Random(1), 0

    for _ in range(300):
        damaged = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for place in rng.choices(range(len(damaged)), k=3 if damaged else 0):
            damaged[place] = rng.randrange(256)
        try:
            read_program(bytes(damaged), "damaged.elf")
        except CaseError:
            refused += 1

    assert 0 < refused < 300
