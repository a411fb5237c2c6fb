"""Where host and guest find what they exchange: the numbers that the harness is assembled with."""

from __future__ import annotations

from typing import Final

MOST_FRAMES: Final = 128
"""Physical pages of a case are below this; what lies above belongs to the harness."""
RECORD_SHIFT: Final = 12
RECORD: Final = 1 << RECORD_SHIFT
"""Bytes of a job record and of a result record."""
SAVE_BYTES: Final = 0x400
"""The save area of SMM, from SMBASE + 0xFC00 on."""
MOST_EVENTS: Final = 4

CONTROL: Final = 0x12_0000
PHASE, TURN, DONE, JOBS, INDEX, FINISHED, OUT, OUT_NEXT, OUT_END, STARTED, BOOTED, BOOTS = range(0, 0x60, 8)
JOB_RECORDS, RESULTS, ROUTED, REPEATS, WATCHED, MISSED = range(0x60, 0x90, 8)
"""Fields of the control block: the host writes JOBS, OUT, OUT_END, JOB_RECORDS, RESULTS and then TURN; the guest sets DONE to TURN
when FINISHED of the jobs have run. BOOTS counts resets. ROUTED says that the HPET reaches the processor by the I/O APIC only, and that
its first timer is the stop; REPEATS that repeated string instructions are the engine's quickest way to copy. WATCHED: some run of this
turn was looked at by its watch only; MISSED: such a look has missed something."""

PHASE_IDLE, PHASE_RUNNING, PHASE_DISARMED = range(3)

JOB_PAGES, JOB_EVENTS, JOB_STOP, JOB_BREAKPOINTS, JOB_REGISTERS = range(0, 5 * 8, 8)
JOB_EVENT: Final = 0x90
"""(message data, delay) of each event, 8 bytes each."""
JOB_LEAST: Final = 0xD0
"""Nanoseconds that a run takes at least: one that was over sooner has not begun, and is begun again."""
JOB_WATCH, JOB_WATCHED, JOB_ROOT, JOB_OTHER_ROOT = range(0xD8, 0xF8, 8)
"""Address and length of a list of page-table entries: (address, frame) 4 bytes each. A dirty flag that is set in one tells that the frame
was written; where WATCH_CLEARED is in the frame, the flag was cleared for that alone. It holds as long as CR3 is one of the roots."""
WATCH_CLEARED: Final = 1 << 31
WATCH_MOST: Final = 4096 // 8
JOB_WALK, JOB_STEP, JOB_STUB = range(0xF8, 0x110, 8)
"""A run that is walked is stopped for a note at each of JOB_WALK ticks from its stop on, by timers of JOB_STEP, unless it comes to the way
out, which begins at JOB_STUB."""
STUB_BYTES: Final = 8
MOST_WALK: Final = 0x1000
WALK_SHIFT: Final = 5
"""A note is 32 bytes: RIP, RCX, RSP, RFLAGS."""
JOB_LIST: Final = 0x120
"""(frame, address of its page) of each frame that has to be loaded, 4 bytes each."""
JOB_SAVE: Final = RECORD - SAVE_BYTES

RESULT_STATUS, RESULT_TICKS, RESULT_PAGES = range(0, 3 * 8, 8)
RESULT_REGISTERS: Final = 0x20
RESULT_WALK, RESULT_WALKED = range(0x90, 0xA0, 8)
"""Address and number of the notes of a walk."""
RESULT_LIST: Final = 0x100
"""(frame, address of the copy) of each frame that changed, 4 bytes each."""
RESULT_SAVE: Final = RECORD - SAVE_BYTES

STATUS_STOPPED: Final = 1
"""The run ended, or the stop came: the save area tells."""
STATUS_SHUTDOWN: Final = 2
STATUS_STALLED: Final = 3
"""The host has reset the machine, as no instruction retired any more."""

REGISTERS_LOADED: Final = (
    "cr2", "cr8", "dr0", "dr1", "dr2", "dr3", "kernel_gs_base", "star", "lstar", "cstar", "sfmask", "sysenter_cs", "sysenter_esp",
    "sysenter_eip",
)  # fmt: skip
"""What the harness loads and reads itself, in the order of the records; the save area has the rest."""

SMBASE: Final = 0x10_0000
TABLES: Final = 0x11_0000
STACK: Final = 0x11_7000
IDT: Final = 0x11_8000
LOADED: Final = 0x12_1000
MARKED: Final = 0x12_1800
"""A byte for each frame that was written."""
TRAMPOLINE_SAVE: Final = 0x12_2000
JOB_AREA: Final = 0x20_0000
RESULT_AREA: Final = 0x40_0000
POOL: Final = 0x60_0000
OUT_AREA: Final = 0x200_0000
MEMORY: Final = 0x400_0000
"""Bytes of guest memory in all."""
ROM_MARKS: Final = 0xFFFF_FFE0
"""A word of the ROM that tells it to write MARK, MARK + 1 and so on to the MARK_PLACE of each BLOCK of memory, and to wait until the first
is taken away: for engines whose memory the host has to find."""
MARK: Final = 0x5EED_0000
MARK_PLACE: Final = 0xFFF0
BLOCK: Final = 0x2_0000
MOST_JOBS: Final = (RESULT_AREA - JOB_AREA) // RECORD

CONSTANTS: Final = {name: value for name, value in dict(globals()).items() if name.isupper() and isinstance(value, int)}
"""What constants.inc says when the harness is assembled: every number above."""
