"""What a profile's features change in the code, and what stays the same."""

from __future__ import annotations

import pytest
from iced_x86 import Decoder, Mnemonic
from linux4_log import LINUX4, PROFILE_NAMES

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.targets import layout, tables
from fuzzer.targets.linux4 import image
from reference.profiles import PROFILES

FEATURES = {
    "intel": {"fsgsbase", "smap"},
    "amd": {"fsgsbase", "smap"},
    "intel-2012": {"fsgsbase"},
    "intel-2010": set(),
    "intel-pti": {"fsgsbase", "smap", "pti"},
}


def text(profile: str) -> bytes:
    """The kernel text of a profile."""
    pages = build(Case("linux4", "int3-from-user", profile)).pages
    first = tables.FRAMES["kernel_text"]
    return b"".join(pages[first + number] for number in range(layout.KERNEL_TEXT.pages))


def mnemonics(profile: str, start: str, end: str) -> list[int]:
    """The instructions between two labels."""
    first, last = (LINUX4.symbols[name] - layout.KERNEL_TEXT.start for name in (start, end))
    return [each.mnemonic for each in Decoder(64, text(profile)[first:last], ip=LINUX4.symbols[start])]


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_a_profile_has_the_code_of_its_features_and_no_other(profile: str) -> None:
    code, offset = text(profile), layout.KERNEL_TEXT.start

    for each in image.load().alternatives:
        stands = code[each.address - offset : each.address - offset + len(each.code)] == each.code
        assert stands == (each.feature in FEATURES[profile]), f"{each.address:#x} {each.feature}"


def test_a_processor_without_smap_is_never_asked_for_clac() -> None:
    assert Mnemonic.CLAC in mnemonics("intel", "divide_error", "debug")
    assert Mnemonic.CLAC not in mnemonics("intel-2012", "divide_error", "entry_text_end")


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_no_entry_of_a_processor_with_fsgsbase_relies_on_the_sign_of_gs(profile: str) -> None:
    """User mode may write a negative base there, so Linux 5.9 asks for it by RDGSBASE; the RDMSR of the sign test is jumped over."""
    begins = mnemonics(profile, "paranoid_entry", "paranoid_exit")
    ask, jump = begins.index(Mnemonic.RDGSBASE), Mnemonic.JMP in begins[: begins.index(Mnemonic.RDGSBASE)][-1:]

    assert ask
    assert jump == (not PROFILES[profile].fsgsbase)


@pytest.mark.parametrize("feature", image.FEATURES)
def test_every_feature_is_a_field_of_a_profile(feature: str) -> None:
    assert all(isinstance(getattr(profile, feature), bool) for profile in PROFILES.values())


def test_the_low_copy_of_the_entry_text_is_patched_alike() -> None:
    for profile in PROFILE_NAMES:
        pages = build(Case("linux4", "int3-from-user", profile)).pages
        first = tables.FRAMES["entry_text_low"]
        low = b"".join(pages[first + number] for number in range(layout.ENTRY_TEXT_PAGES))
        assert low == text(profile)[: len(low)]
