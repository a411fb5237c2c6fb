"""The corpus of a database: to files, from files, and made smaller."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from db.corpus import corpus, corpus_cases, drop_from_corpus, save_corpus
from db.engine import open_database
from entryfuzz.database import opened
from entryfuzz.errors import Mistake
from entryfuzz.output import note
from entryfuzz.replay import find_core
from fuzzer.case import decode, encode
from fuzzer.guided.job import LONGEST

MOST_FILES = 100_000
"""Files that are looked at in one import: whoever has more has named another folder than they meant."""


def exported(folder: Path, target: str | None, database: str) -> dict[str, int]:
    """Write the corpus to DIR/TARGET/DIGEST; how many cases of each target there are."""
    with opened(database) as engine:
        rows = corpus(engine, target)
    for row in rows:
        place = folder / row.target
        _written(place, row.digest, row.data)
    return dict(sorted(Counter(row.target for row in rows).items()))


def _written(place: Path, name: str, data: bytes) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    except OSError as error:
        raise Mistake(f"{place / name}: cannot be written: {error.strerror}; name another folder") from None


def imported(folder: Path, database: str) -> dict[str, int]:
    """Add what the files of a folder decode to; how many are `new`, `known` and `too_large`."""
    if not folder.is_dir():
        raise Mistake(f"{folder}: there is no such folder; name one with a file for each case, as corpus export writes it")
    cases: dict[str, set[bytes]] = defaultdict(set)
    too_large = 0
    for number, path in enumerate(_files(folder)):
        if number >= MOST_FILES:
            raise Mistake(f"{folder}: holds more than {MOST_FILES:,} files; name a folder with nothing but cases")
        data = _read(path)
        if data is None:
            too_large += 1
        else:
            case = decode(data)
            cases[case.target].add(encode(case))
    engine = open_database(database)
    new = sum(save_corpus(engine, target, found, "imported") for target, found in sorted(cases.items()))
    engine.dispose()
    return {"new": new, "known": sum(map(len, cases.values())) - new, "too_large": too_large}


def _files(folder: Path) -> Iterator[Path]:
    """Plain files in a fixed order; links lead elsewhere and are left out."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _read(path: Path) -> bytes | None:
    """The bytes of a file, never more than a case can have; None where there are more."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise Mistake(f"{path}: cannot be read: {error.strerror}") from None
    return data if len(data) <= LONGEST else None


def merged_corpora(target: str | None, cores: tuple[str, ...], database: str) -> list[dict[str, str | int]]:
    """Make the corpus of each target smaller; a row for each with `target`, `before` and `after`."""
    from workers.merging import dispensable

    for name in cores:
        find_core(name)
    done: list[dict[str, str | int]] = []
    with opened(database) as engine:
        for name in sorted({row.target for row in corpus(engine, target)}):
            cases = corpus_cases(engine, name)
            note(f"merging {len(cases):,} cases of {name}")
            dropped = dispensable(name, cases, cores)
            drop_from_corpus(engine, dropped)
            done.append({"target": name, "before": len(cases), "after": len(cases) - len(dropped)})
    return done
