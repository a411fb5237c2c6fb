"""The page docs/planted-bugs.md, from a stored result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from entryfuzz.views.mutants import totals

_HEAD: Final = """\
# Planted bugs

How good is the fuzzer at finding what it is for? Each mutant is the clean build with one wrong condition or one wrong step, drawn
from the history of entry code and emulators. Nothing that looks for them knows what is planted. Misses are published, not removed.

Made by `entryfuzz mutants page` from [planted-bugs.json](planted-bugs.json), which
`entryfuzz mutants run --json --jobs {jobs} --seconds-per-mutant {seconds_per_mutant:g} --seed {seed}` wrote: change neither by hand.

- **Witness**: a case made by hand, which shows that the mutant can be seen at all, and shows nothing on the clean build.
- **Found**: mutants of entry code and descriptors when a promise of the [contract](contract.md) breaks, when the processor shuts down,
  or when a path that ends on the clean build never ends; mutants of a core when it differs from the specification in a case in which
  the unchanged core does not. What Unicorn itself does wrong counts for nothing here.
- **By**: the arm that needs the fewest cases. `sweep` runs every path as it is, then with every kind of event at every boundary: paths
  in random order, instructions at which no such event has arrived yet first. It changes no register, so it misses what only a flag or
  a frame of the user's choice shows. `random` is the control: a random scenario, registers and frames that user mode or its tracer can
  set, up to three events. Neither sends a second machine check, or a second NMI beside one: no entry code of this kind survives those.
- **Cases, seconds** (of processor time) to the first finding: the median over {seeds} seeds, each with at most {seconds_per_mutant:g}
  seconds for an arm. Where most seeds found nothing the mutant is a miss.
- **⧗** marks mutants that only an event at the right boundary can show: on every path as it is, the contract holds.
- **False positives**: findings of the same arms, seeds and seconds on the clean build, and of a core with nothing changed.

"""


def page(result: Mapping[str, Any]) -> str:
    """The whole page."""
    return "\n".join((_HEAD.format(**result) + totals(result) + ".", "", *_tables(result)))


def _tables(result: Mapping[str, Any]) -> Iterator[str]:
    for kind in dict.fromkeys(row["kind"] for row in result["mutants"]):
        rows = [row for row in result["mutants"] if row["kind"] == kind]
        yield f"## {kind.capitalize()}: {sum(row['found'] for row in rows)} of {len(rows)} found"
        yield ""
        yield "| mutant | story | change | witness | found by | cases | seconds | sweep | random |"
        yield "|---|---|---|---|---|---:|---:|---:|---:|"
        yield from map(_row, rows)
        yield ""


def _row(row: Mapping[str, Any]) -> str:
    cells = (
        f"`{row['name']}`{' ⧗' if row['arrival_only'] else ''}",
        f"{row['story']} ({row['source']})",
        "<br>".join(row["changes"]),
        "yes" if row["witness"] else "**no**",
        row["arm"] or "**missed**",
        *((f"{row['cases']:,}", f"{row['seconds']:.2f}") if row["found"] else ("", "")),
        *(_arm(row["arms"][arm]) for arm in ("sweep", "random")),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _arm(arm: Mapping[str, Any]) -> str:
    return f"{arm['cases']:,}" if arm["found"] else f"missed ({arm['seeds_that_found']}/{arm['seeds']})"
