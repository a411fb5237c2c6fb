"""The page docs/entry-paths.md, and the same table for terminals and programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from entryfuzz.views.listings import table
from fuzzer.entry_paths import EntryPath
from fuzzer.targets.target import Scenario
from reference.profiles import PROFILES

_HEAD: Final = """\
# The ways into `linux4`

Made by `entryfuzz targets paths linux4 --markdown` (`make docs`) from the target's own tables and from runs of the specification:
do not change it by hand. What the entry code promises on each of them is in [contract.md](contract.md).

- **GS test**: how the entry finds out whose GS it has. `CS`: the cheap one, the privilege level in the frame. Where the processor has
  FSGSBASE, user mode can write a base that looks like the kernel's; there the expensive test is no test: the base is read, kept, and
  written back. The sign of GS.base decides only for `intel-2010`.
- **Paranoid**: the expensive test from the kernel, off the IST stack when user mode was interrupted, no rescheduling on the way back to
  the kernel. A double fault stays where it is, because the thread stack may be what is broken.
- **Stack**: where the C handler runs. `the interrupted`: on the stack of the interrupted kernel code. In `intel-pti` every frame from
  user mode is pushed on an IST stack or on the entry stack, and moves to the thread stack before a handler runs.
- **Length**: instructions of the entry code and its recorder on a plain path, every repetition of a string instruction counted. A
  profile without the way has none.
"""

_LIMITS: Final = """\
## What these ways leave open, as Linux does

- A machine check between the first instruction of an NMI and the end of its first copy of the frame ends with an IRET, which lets the
  next NMI in; if one is waiting, it overwrites the frame that has not been copied yet.
- What `do_nmi` writes into RIP to SS of the frame of an NMI that interrupted the kernel counts only when the NMI repeats: `pt_regs` ends
  with the outermost frame, and IRET takes the copy of it that a nested NMI may change.
- A breakpoint or single-step trap inside an NMI that interrupted the first instructions of the debug entry, before it has moved its IST
  slot, would take the same stack. The handler here meets an INT3 only where a scenario asks for one.
- SYSENTER tells the kernel neither RIP nor RSP: it goes on at the landing place, with EBP for ESP.
- A return to a stack segment of the LDT is recognized (`native_irq_return_ldt`); what IRET to a 16-bit one leaves in RSP is not modelled.
"""


def page(paths: Iterable[EntryPath], scenarios: Iterable[Scenario], calls: Mapping[str, str]) -> str:
    """The whole page; `calls` says by a scenario's name which handlers run."""
    paths = list(paths)
    parts = (_HEAD, *_properties(paths), *_lengths(paths), *_scenarios(scenarios, calls), _LIMITS)
    return "\n".join(parts)


def _properties(paths: Iterable[EntryPath]) -> Iterator[str]:
    yield "## Gates and entries\n"
    yield "| vector | taken by | entry | gate | DPL | IST | error code | paranoid | GS test | handler | from user on | from kernel on |"
    yield "|---:|---|---|---|---:|---:|---|---|---|---|---|---|"
    for path in paths:
        yield _row(
            "" if path.vector is None else f"{path.vector:#x}" if path.vector >= 32 else str(path.vector),
            path.taken_by,
            f"`{path.entry}`",
            path.gate,
            "" if path.dpl is None else str(path.dpl),
            str(path.ist) if path.ist else "",
            "yes" if path.error_code else "no",
            path.paranoid,
            path.gs_test,
            f"`{path.handler}`",
            ", ".join(path.stacks_from_user),
            ", ".join(path.stacks_from_kernel),
        )
    yield ""


def _lengths(paths: Iterable[EntryPath]) -> Iterator[str]:
    yield "## Lengths in instructions, from user mode and from the kernel\n"
    yield f"| entry | {' | '.join(f'{name}, user' for name in PROFILES)} | {' | '.join(f'{name}, kernel' for name in PROFILES)} | note |"
    yield f"|---|{'---:|' * (2 * len(PROFILES))}---|"
    for path in paths:
        numbers = (str(lengths.get(name, "")) for lengths in (path.from_user, path.from_kernel) for name in PROFILES)
        yield _row(f"`{path.entry}`", *numbers, path.note)
    yield ""


def _scenarios(scenarios: Iterable[Scenario], calls: Mapping[str, str]) -> Iterator[str]:
    yield "## Scenarios\n"
    yield "| scenario | what | begins at CPL | handlers, in the profile intel |"
    yield "|---|---|---:|---|"
    for scenario in scenarios:
        yield _row(f"`{scenario.name}`", scenario.summary, str(scenario.cpl), calls[scenario.name])
    yield ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def view(paths: Iterable[EntryPath]) -> Table:
    """The short form for a terminal."""
    result = table("vector", "taken by", "entry", "DPL", "IST", "paranoid", "handler", "user", "kernel", right=("vector", "user", "kernel"))
    for path in paths:
        vector = "" if path.vector is None else str(path.vector)
        lengths = (str(next(iter(each.values()), "")) for each in (path.from_user, path.from_kernel))
        numbers = ("" if number is None else str(number) for number in (path.dpl, path.ist or None))
        result.add_row(vector, path.taken_by, path.entry, *numbers, path.paranoid, path.handler, *lengths)
    return result


def to_json(paths: Iterable[EntryPath]) -> list[dict[str, Any]]:
    """The rows for programs."""
    return [asdict(path) for path in paths]
