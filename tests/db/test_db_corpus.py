from datetime import UTC, datetime

from sqlalchemy import Engine

from db.corpus import AT_ONCE, corpus, drop_from_corpus, save_corpus
from db.records import case_digest

THEN, LATER = datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def test_what_is_saved_is_read_in_the_order_of_the_digests(engine: Engine) -> None:
    assert save_corpus(engine, "snippets", [b"one", b"two"], "why", at=THEN) == 2

    rows = corpus(engine)

    assert [row.digest for row in rows] == sorted(map(case_digest, (b"one", b"two")))
    assert {(row.data, row.target, row.reason, row.first_seen) for row in rows} == {
        (b"one", "snippets", "why", THEN),
        (b"two", "snippets", "why", THEN),
    }


def test_a_case_is_kept_once_as_it_came_first(engine: Engine) -> None:
    save_corpus(engine, "snippets", [b"one", b"one"], "first", at=THEN)

    assert save_corpus(engine, "snippets", [b"one", b"two"], "second", at=LATER) == 1
    assert {(row.data, row.reason) for row in corpus(engine)} == {(b"one", "first"), (b"two", "second")}


def test_each_target_has_its_own(engine: Engine) -> None:
    save_corpus(engine, "snippets", [b"one"], "")
    save_corpus(engine, "linux4", [b"two"], "")

    assert [row.data for row in corpus(engine, "linux4")] == [b"two"]


def test_many_cases_go_in_and_out_in_portions(engine: Engine) -> None:
    cases = [str(number).encode() for number in range(2 * AT_ONCE + 1)]

    assert save_corpus(engine, "snippets", cases, "") == len(cases)
    drop_from_corpus(engine, [case_digest(data) for data in cases[1:]])

    assert [row.data for row in corpus(engine)] == [b"0"]


def test_nothing_to_save_and_nothing_to_forget_change_nothing(engine: Engine) -> None:
    assert save_corpus(engine, "snippets", [], "") == 0
    drop_from_corpus(engine, ["not there"])

    assert corpus(engine) == []
