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

    text, symbols = assemble.assemble()

    assert text == image.TEXT_FILE.read_bytes()
    assert assemble.description(text, symbols) == image.SYMBOLS_FILE.read_text(encoding="utf-8")


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


def test_every_gate_has_its_own_vector_and_an_entry(linux4: image.Image4) -> None:
    vectors = [gate.vector for gate in image.GATES]

    assert len(set(vectors)) == len(vectors)
    assert layout.END_VECTOR not in vectors
    assert {gate.symbol for gate in image.GATES} <= linux4.symbols.keys()
    assert [gate.vector for gate in image.GATES if gate.dpl == 3] == [3]


@pytest.mark.parametrize("number", range(image.INTERRUPTS))
def test_an_interrupt_stub_pushes_the_complement_of_its_vector(linux4: image.Image4, number: int) -> None:
    vector = image.FIRST_INTERRUPT + number
    offset = linux4.symbols[f"interrupt_{vector:#x}"] - layout.KERNEL_TEXT.start

    assert linux4.text[offset : offset + 2] == b"\x6a" + struct.pack("<b", ~vector)  # push imm8


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
