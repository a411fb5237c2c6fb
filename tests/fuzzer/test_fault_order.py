"""The faults that one instruction could raise are those that its own checks meet, and none else."""

from __future__ import annotations

import pytest
from fuzzer_builders import snippet

from fuzzer.build import build
from fuzzer.cores.silicon.tolerances import EFFECTIVE_ADDRESS, FAULT_ORDER
from fuzzer.fault_order import possible_faults
from fuzzer.targets import layout
from fuzzer.targets.target import patch

START, END = layout.USER_STACK.start, layout.USER_STACK.end
GP, SS, PF, AC = 13, 12, 14, 17


def faults(code: str, retired: int = 0, frame: bytes = b"", **registers: int) -> dict[tuple[int, int | None, int | None], str]:
    at = registers.get("rsp", layout.USER_STACK.end - 0x100)
    memory = [patch(layout.USER_STACK, at - layout.USER_STACK.start, frame)] if frame else []
    image = build(snippet(code, "user", "amd", memory=memory, **registers))
    return {fault: reason.id for fault, reason in possible_faults(image, retired).items()}


def test_every_word_of_a_frame_may_be_the_one_that_is_missing() -> None:
    met = faults("48cf", rsp=END - 8)

    assert {fault for fault in met if fault[0] == PF} == {(PF, 4, END + 8 * n) for n in range(4)}
    assert set(met.values()) == {FAULT_ORDER.id}


def test_compatibility_mode_pops_three_words() -> None:
    to_second_byte_as_32_bit_code = (layout.USER_CODE.start + 1, layout.USER32_CS, 0x202, 1, layout.USER_DS)

    met = faults("cf cf", retired=1, frame=b"".join(word.to_bytes(4, "little") for word in to_second_byte_as_32_bit_code))

    assert met == {(PF, 4, 1 + 4 * n): FAULT_ORDER.id for n in range(3)}


def test_a_sound_frame_meets_no_fault() -> None:
    words = (layout.USER_CODE.start, layout.USER_CS, 0x202, END - 8, layout.USER_DS)

    assert faults("48cf", frame=b"".join(word.to_bytes(8, "little") for word in words)) == {}


def test_selectors_and_target_of_a_frame_are_judged_each_for_itself() -> None:
    words = (1 << 63, layout.KERNEL_DS | 3, 0x202, 0, layout.KERNEL_DS)

    met = faults("48cf", frame=b"".join(word.to_bytes(8, "little") for word in words))

    assert set(met) == {(GP, layout.KERNEL_DS, None), (GP, 0, None)}


def test_a_misaligned_frame_may_be_an_alignment_fault() -> None:
    assert (AC, 0, None) in faults("48cf", rsp=END - 0x101, rflags=0x4_0202)
    assert (AC, 0, None) not in faults("48cf", rsp=END - 0x101)


@pytest.mark.parametrize(
    ("code", "registers", "fault", "reason"),
    [
        pytest.param(
            "ffd0", {"rax": 1 << 63, "rsp": layout.USER_STACK.start}, (PF, 6, layout.USER_STACK.start - 8), FAULT_ORDER, id="call"
        ),
        pytest.param("0f35", {}, (GP, 0, None), FAULT_ORDER, id="sysexit"),
        pytest.param("648b00", {"rax": 0xFFFF_7FFF_FFFF_FFF8}, (GP, 0, None), EFFECTIVE_ADDRESS, id="effective-address"),
    ],
)
def test_another_fault_is_known(code: str, registers: dict[str, int], fault: tuple[int, int, int | None], reason: object) -> None:
    assert faults(code, **registers)[fault] == getattr(reason, "id", None)


def test_order_is_no_question_for_most_instructions() -> None:
    assert faults("8b00", rax=1 << 63) == {}
    assert faults("90 8b00", retired=1, rax=1 << 63) == {}
