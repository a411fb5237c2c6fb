"""The matrix on a terminal: colours for people who see them, letters for everybody."""

from __future__ import annotations

from rich.console import Console, RenderableType

from db.sweep_records import SweepTotals, SweptPath
from entryfuzz.views import heat_map, sweeps
from fuzzer.sweep.outcomes import Outcome


def printed(view: RenderableType, colours: bool = False) -> str:
    console = Console(width=200, markup=False, highlight=False, color_system="truecolor" if colours else None, force_terminal=colours)
    with console.capture() as captured:
        console.print(view)
    return captured.get()


def test_every_outcome_has_a_colour_of_its_own_and_words() -> None:
    assert set(heat_map.STYLES) == set(heat_map.WORDS) == set(Outcome)
    assert len(set(heat_map.STYLES.values())) == len(Outcome)


def test_the_legend_has_every_letter() -> None:
    assert all(f"{outcome.value} {heat_map.WORDS[outcome]}"[:20] in printed(heat_map.legend()).replace("\n", " ") for outcome in Outcome)


def test_a_strip_reads_the_same_without_colours() -> None:
    assert printed(heat_map.strip_of("ddmmwxc")).strip() == "ddmmwxc"


def test_a_strip_changes_colour_where_the_outcome_changes() -> None:
    assert printed(heat_map.strip_of("dddxxd"), colours=True).count("\x1b[0m") == 3


def path(**changes: int) -> SweptPath:
    counts = {"runs": 1200, "merged": 3, "contract_violations": 0, "divergences": 0} | changes
    return SweptPath(number=0, scenario="s", profile="intel", start="", boundaries=4, cells={"nmi": "dmxc"}, seconds=1.0, **counts)


def test_what_was_found_is_said_in_words() -> None:
    assert heat_map.found(path()) == "1,200 runs, nothing found"
    assert heat_map.found(path(divergences=7)) == "7 of 1,200 runs diverge"
    assert heat_map.found(path(divergences=7, contract_violations=2)) == "7 of 1,200 runs diverge, 2 break the contract"


def test_totals_in_one_line() -> None:
    assert sweeps.counts(SweepTotals(21, 2305, 6936, 3394, 0, 0)) == "21 paths, 2,305 boundaries, 6,936 runs (3,394 merged)"
