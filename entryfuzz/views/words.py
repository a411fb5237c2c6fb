"""Names for words of memory: parts of event frames, of the TSS, and of what the target linux4 keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fuzzer.case_tables import TSS_FIELDS
from fuzzer.targets.layout import TSS_OFFSET
from fuzzer.targets.linux4.image import CONTROL_FIELDS, PERCPU_FIELDS, PT_REGS, RECORD, RECORD_SIZE

_TSS: Final = {TSS_OFFSET + offset: f"TSS.{name}" for name, offset in TSS_FIELDS.items()}
_PERCPU: Final = {offset: name for name, offset in PERCPU_FIELDS.items() if name != "cpu_tss"}
_CONTROL: Final = {offset: name for name, offset in CONTROL_FIELDS.items()}
_RECORD: Final = {offset: name for name, offset in RECORD.items() if name != "frame"} | {
    RECORD["frame"] + offset: f"pt_regs.{name}" for name, offset in PT_REGS.items()
}


def word_name(place: str, frames: Mapping[str, str], target: str) -> str:
    """What the word at `region+0x10` is, or nothing: a part of a frame, of the TSS, of a record in the log."""
    if place in frames:
        return frames[place]
    region, _, text = place.rpartition("+")
    offset = int(text, 16)
    if region == "percpu" and (offset & ~7 | 4) in _TSS and offset >= TSS_OFFSET:
        return _tss_word(offset)
    return _linux4_word(region, offset) if target == "linux4" else ""


def _tss_word(offset: int) -> str:
    """A TSS pointer lies 4 bytes off the 8-byte words of memory, so a word has the ends of two."""
    return " and ".join(_TSS[start] for start in (offset - 4, offset + 4) if start in _TSS)


def _linux4_word(region: str, offset: int) -> str:
    if region == "percpu":
        return _PERCPU.get(offset, "")
    if region == "control":
        return _CONTROL.get(offset, "")
    if region == "log":
        number, at = divmod(offset, RECORD_SIZE)
        return f"record {number}: {_RECORD[at]}" if at in _RECORD else ""
    return ""
