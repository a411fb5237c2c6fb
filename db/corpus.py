"""The corpus: what is written of it and what is read. Cases are kept under their digests, so none is kept twice."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from sqlalchemy import Connection, Engine, delete, func, select

from db.models import Corpus
from db.records import case_digest
from db.store import insert_new
from db.transactions import reading, writing

_T = TypeVar("_T")
AT_ONCE = 500
"""Rows in one statement."""


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """A case of the corpus; `reason` says in words how it came in."""

    digest: str
    target: str
    data: bytes
    reason: str
    first_seen: datetime


def save_corpus(engine: Engine, target: str, cases: Iterable[bytes], reason: str, *, at: datetime | None = None) -> int:
    """Add cases of one target, all or none; those that are there already stay as they are. How many are new."""
    with writing(engine) as connection:
        counted = select(func.count()).select_from(Corpus)
        before = connection.execute(counted).scalar_one()
        put_corpus(connection, target, cases, reason, at or datetime.now(UTC))
        return connection.execute(counted).scalar_one() - before


def put_corpus(connection: Connection, target: str, cases: Iterable[bytes], reason: str, at: datetime) -> None:
    """The same within a transaction, without counting."""
    rows = {case_digest(data): data for data in cases}
    for digests in _portions(sorted(rows)):
        values = [{"digest": digest, "target": target, "bytes": rows[digest], "reason": reason, "first_seen": at} for digest in digests]
        connection.execute(insert_new(connection, Corpus), values)


def corpus(engine: Engine, target: str | None = None) -> list[CorpusRow]:
    """The corpus of a target, or all of it, in the order of the digests."""
    query = select(Corpus.digest, Corpus.target, Corpus.data.label("data"), Corpus.reason, Corpus.first_seen).order_by(Corpus.digest)
    if target is not None:
        query = query.where(Corpus.target == target)
    with reading(engine) as connection:
        return [CorpusRow(**row._mapping) for row in connection.execute(query)]


def corpus_cases(engine: Engine, target: str) -> tuple[bytes, ...]:
    """The bytes of the corpus of a target, in the order of the digests."""
    return tuple(row.data for row in corpus(engine, target))


def drop_from_corpus(engine: Engine, digests: Collection[str]) -> None:
    """Forget cases, all or none; those that are not there change nothing."""
    with writing(engine) as connection:
        take_from_corpus(connection, digests)


def take_from_corpus(connection: Connection, digests: Collection[str]) -> None:
    """The same within a transaction."""
    for portion in _portions(sorted(digests)):
        connection.execute(delete(Corpus).where(Corpus.digest.in_(portion)))


def _portions(items: Sequence[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while portion := list(islice(rest, AT_ONCE)):
        yield portion
