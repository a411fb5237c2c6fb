"""`entryfuzz corpus` and `fuzz --mode guided`, on the real engine."""

from pathlib import Path

import pytest
from entryfuzz_program import Entryfuzz

from fuzzer.guided.job import LONGEST

FUZZ = ("fuzz", "--mode", "guided", "--target", "snippets", "--profile", "intel", "--seed", "7", "--cases", "200", "--db", "found.db")


@pytest.fixture
def fuzzed(entryfuzz: Entryfuzz) -> Entryfuzz:
    """A command line with results and a corpus in found.db."""
    assert entryfuzz(*FUZZ).code == 0
    return entryfuzz


def files(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_guided_campaign_is_a_campaign(entryfuzz: Entryfuzz) -> None:
    ran = entryfuzz(*FUZZ, "--json")

    result = ran.json()
    assert (result["cases"], result["mode"], result["seed"]) == (200, "guided", 7)
    assert result["buckets"]
    assert "guided, seed 7" in ran.err
    assert entryfuzz("case", "run", result["buckets"][0]["id"], "--db", "found.db").code == 1


def test_a_mode_that_there_is_not_is_one_line(entryfuzz: Entryfuzz) -> None:
    ran = entryfuzz("fuzz", "--mode", "lucky")

    assert ran.code == 2
    assert 'there is no mode "lucky"; known: random, guided' in ran.err


def test_the_corpus_goes_out_and_comes_in_again(fuzzed: Entryfuzz) -> None:
    counts = fuzzed("corpus", "export", "out", "--db", "found.db", "--json").json()

    assert counts["snippets"] == len(files("out")) > 20
    assert fuzzed("corpus", "import", "out", "--db", "other.db", "--json").json() == {
        "new": counts["snippets"],
        "known": 0,
        "too_large": 0,
    }
    assert fuzzed("corpus", "import", "out", "--db", "other.db", "--json").json()["new"] == 0
    assert fuzzed("corpus", "export", "again", "--target", "snippets", "--db", "other.db").code == 0
    assert files("again") == files("out")


def test_any_file_is_a_case_but_one_that_is_too_large_or_a_link(entryfuzz: Entryfuzz) -> None:
    folder = Path("in")
    (folder / "deeper").mkdir(parents=True)
    (folder / "empty").write_bytes(b"")
    (folder / "deeper" / "text").write_bytes(b"not a case at all")
    (folder / "large").write_bytes(bytes(LONGEST + 1))
    (folder / "link").symlink_to("deeper/text")

    assert entryfuzz("corpus", "import", "in", "--json").json() == {"new": 2, "known": 0, "too_large": 1}


def test_a_merge_makes_it_smaller(fuzzed: Entryfuzz) -> None:
    (row,) = fuzzed("corpus", "merge", "--db", "found.db", "--json").json()

    assert row["target"] == "snippets"
    assert row["before"] > row["after"] > 0
    assert fuzzed("corpus", "export", "out", "--db", "found.db", "--json").json() == {"snippets": row["after"]}


def test_an_empty_corpus_says_how_to_fill_it(fuzzed: Entryfuzz) -> None:
    for command in (("export", "out"), ("merge",)):
        ran = fuzzed("corpus", *command, "--target", "linux4", "--db", "found.db")
        assert "entryfuzz fuzz --mode guided fills it" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "nowhere"), "there is no such folder"),
        (("export", "out", "--db", "nothing.db"), "there is no such database"),
        (("merge", "--db", "nothing.db"), "there is no such database"),
    ],
)
def test_a_mistake_is_one_line(entryfuzz: Entryfuzz, arguments: tuple[str, ...], said: str) -> None:
    ran = entryfuzz("corpus", *arguments)

    assert ran.code == 2
    assert said in ran.err.splitlines()[-1]
