"""The committed image of linux4 is what its sources say, and its tables agree with it."""

from __future__ import annotations

import json
import os
import struct

import pytest

from fuzzer.targets import layout
from fuzzer.targets.linux4 import assemble, image


@pytest.fixture(scope="module")
def linux4() -> image.Image4:
    return image.load()


def test_assembling_again_gives_the_committed_files() -> None:
    if missing := assemble.missing_tools():
        reason = f"GNU binutils are needed to assemble the image again; missing: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    assembled = assemble.assemble()

    assert assembled.text == image.TEXT_FILE.read_bytes()
    assert assemble.description(assembled) == image.SYMBOLS_FILE.read_text(encoding="utf-8")


def test_the_image_was_assembled_with_the_tables_of_today() -> None:
    committed = json.loads(image.SYMBOLS_FILE.read_text(encoding="utf-8"))

    assert committed["constants"] == {name: f"{value:#x}" for name, value in image.constants().items()}
    assert committed["base"] == f"{layout.KERNEL_TEXT.start:#x}"
    assert committed["size"] == len(image.TEXT_FILE.read_bytes())


def test_a_missing_assembler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")

    status = assemble.main()

    assert status == 1
    assert capsys.readouterr().err == "as, ld, objcopy, nm: not found; install GNU binutils to assemble entry.S\n"


def test_the_text_is_whole_pages_and_fits_its_region(linux4: image.Image4) -> None:
    assert len(linux4.text) % layout.PAGE == 0
    assert 0 < len(linux4.text) <= layout.KERNEL_TEXT.size


def test_every_symbol_lies_in_the_text(linux4: image.Image4) -> None:
    size = len(image.TEXT_FILE.read_bytes())

    outside = {name for name, address in linux4.symbols.items() if not 0 <= address - layout.KERNEL_TEXT.start < size}

    assert outside == set()


def test_every_vector_has_a_gate_but_the_reserved_ones(linux4: image.Image4) -> None:
    """SDM Vol. 3A, Table 7-1: 22 to 31 are reserved, and nothing raises them; one vector ends the run."""
    vectors = [gate.vector for gate in image.ALL_GATES]

    assert sorted(vectors) == [vector for vector in range(256) if vector not in {*range(22, 32), layout.END_VECTOR}]
    assert {gate.symbol for gate in image.ALL_GATES} <= linux4.symbols.keys()


def test_user_mode_may_use_the_gates_that_early_trap_init_and_trap_init_open() -> None:
    """Debug has DPL 0, so INT 1 is #GP; INT3, INTO and the 32-bit system call are user mode's."""
    assert [gate.vector for gate in image.ALL_GATES if gate.dpl == 3] == [3, 4, 0x80]


def test_the_gates_with_an_interrupt_stack_are_those_of_the_documents() -> None:
    stacks = {gate.vector: gate.ist for gate in image.ALL_GATES if gate.ist}

    assert stacks == {
        1: layout.IST_DEBUG,
        2: layout.IST_NMI,
        3: layout.IST_DEBUG,
        8: layout.IST_DOUBLE_FAULT,
        18: layout.IST_MACHINE_CHECK,
    }


@pytest.mark.parametrize("vector", image.STUBS)
def test_an_interrupt_stub_pushes_its_vector_as_one_signed_byte(linux4: image.Image4, vector: int) -> None:
    offset = linux4.symbols[f"interrupt_{vector:#x}"] - layout.KERNEL_TEXT.start

    assert linux4.text[offset : offset + 2] == b"\x6a" + struct.pack("<b", ~vector + 0x80)  # push imm8


def test_the_entries_end_where_user_modes_tables_do(linux4: image.Image4) -> None:
    mapped = range(layout.KERNEL_TEXT.start, layout.KERNEL_TEXT.start + layout.ENTRY_TEXT_PAGES * layout.PAGE)

    assert linux4.symbols["entry_text_end"] in mapped
    assert all(linux4.symbols[gate.symbol] in mapped for gate in image.ALL_GATES)
    assert all(linux4.symbols[handler] not in mapped for handler in image.HANDLERS)


@pytest.mark.parametrize(("handler", "number"), image.HANDLERS.items())
def test_a_handler_loads_its_own_id(linux4: image.Image4, handler: str, number: int) -> None:
    offset = linux4.symbols[handler] - layout.KERNEL_TEXT.start

    assert linux4.text[offset : offset + 5] == b"\xb8" + struct.pack("<I", number)  # mov imm32, %eax


def test_handler_ids_are_distinct_and_none_means_any() -> None:
    numbers = list(image.HANDLERS.values())

    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers


def test_a_record_and_the_changes_fit_their_places() -> None:
    assert image.PT_REGS_SIZE == 21 * 8
    assert image.RECORD["frame"] + image.PT_REGS_SIZE <= image.RECORD_SIZE
    assert image.RECORDS == 16
    assert image.CONTROL_FIELDS["changes"] + 16 * image.MAX_CHANGES <= layout.CONTROL.size


def test_the_percpu_page_starts_outside_interrupts_with_both_stacks() -> None:
    page = image.percpu_image()

    top, irq_stack, count = struct.unpack_from("<QQi", page)
    assert len(page) == layout.PERCPU.size
    assert (top, irq_stack, count) == (layout.THREAD_STACK.end, layout.IRQ_STACK.end, -1)
    assert not any(page[layout.TSS_OFFSET : layout.TSS_OFFSET + layout.TSS_LIMIT + 1])


def test_percpu_variables_stay_clear_of_the_tss() -> None:
    assert all(offset + 8 <= layout.TSS_OFFSET for name, offset in image.PERCPU_FIELDS.items() if name != "cpu_tss")


def test_the_provoked_events_have_a_cause() -> None:
    assert image.BAD_SELECTOR > layout.GDT_LIMIT
    assert not any(region.linear is not None and region.start <= image.UNMAPPED < region.end for region in layout.MAPPED)
