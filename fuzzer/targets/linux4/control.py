"""The control page as patches: what a scenario wants of the handlers."""

from __future__ import annotations

import struct

from fuzzer.targets import layout
from fuzzer.targets.linux4.image import CONTROL_FIELDS, HANDLERS, PT_REGS
from fuzzer.targets.target import Patch, patch


def change(handler: str, **fields: int) -> Patch:
    """`handler` writes fields of the pt_regs it was given."""
    pairs = b"".join(struct.pack("<QQ", PT_REGS[name], value) for name, value in fields.items())
    return patch(layout.CONTROL, 0, struct.pack("<QQQQ", 0, HANDLERS[handler], len(fields), 0) + pairs)


def afterwards(handler: str, **fields: int) -> Patch:
    """`handler` does so once the first change has been made."""
    return patch(layout.CONTROL, CONTROL_FIELDS["next_handler"] - 8, change(handler, **fields).data)


def reschedule(handler: str) -> Patch:
    """While `handler` runs, something makes the scheduler due."""
    return patch(layout.CONTROL, CONTROL_FIELDS["reschedule"], struct.pack("<Q", HANDLERS[handler]))


def breakpoint_in(handler: str) -> Patch:
    """`handler` meets an INT3: its IRET opens the NMI latch."""
    return patch(layout.CONTROL, CONTROL_FIELDS["breakpoint"], struct.pack("<Q", HANDLERS[handler]))
