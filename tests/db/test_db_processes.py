from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

from db_builders import a_campaign, a_finding, a_slice
from sqlalchemy import Engine

from db.engine import open_database
from db.queries import buckets, campaign_totals, campaigns
from db.store import save_slice, start_campaign

SIGNATURES = [f"signature {index}" for index in range(30)]
ROUNDS = 20


def in_two_processes(task: Callable[..., None], *arguments: Any) -> None:
    """Run `task(barrier, 0, ...)` and `task(barrier, 1, ...)` side by side and see that both end well."""
    context = get_context("spawn")
    # When one of them fails, the other waits in vain.
    barrier = context.Barrier(2, timeout=20)
    processes = [context.Process(target=task, args=(barrier, which, *arguments)) for which in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def open_and_start(barrier: Barrier, which: int, url: str) -> None:
    barrier.wait()
    engine = open_database(url)
    start_campaign(engine, a_campaign(seed=which))
    engine.dispose()


def save_the_same_slices(barrier: Barrier, which: int, url: str, campaign: int) -> None:
    engine = open_database(url)
    for number in range(ROUNDS):
        barrier.wait()
        save_slice(engine, campaign, a_slice(number, [a_finding(signature) for signature in SIGNATURES]))
    engine.dispose()


def save_different_slices(barrier: Barrier, which: int, url: str, campaign: int) -> None:
    engine = open_database(url)
    # Opposite orders: whoever locks in the order given waits for the other in a circle.
    signatures = SIGNATURES if which else SIGNATURES[::-1]
    for number in range(which, 2 * ROUNDS, 2):
        # Three each: at six stored findings there is room for one slice's, not for both.
        found = [a_finding(signature, data=bytes([number, index])) for signature in signatures for index in range(3)]
        barrier.wait()
        save_slice(engine, campaign, a_slice(number, found))
    engine.dispose()


def find_new_buckets_together(barrier: Barrier, which: int, url: str, campaign: int) -> None:
    engine = open_database(url)
    for number in range(ROUNDS):
        new = [a_finding(f"{signature} of round {number}", data=bytes([which])) for signature in SIGNATURES]
        barrier.wait()
        save_slice(engine, campaign, a_slice(2 * number + which, new))
    engine.dispose()


def test_two_processes_can_open_a_new_database_at_once(url: str) -> None:
    in_two_processes(open_and_start, url)

    engine = open_database(url)
    assert {row.seed for row in campaigns(engine)} == {0, 1}
    engine.dispose()


def test_two_processes_that_save_the_same_slices_count_them_once(engine: Engine, url: str) -> None:
    campaign = start_campaign(engine, a_campaign())

    in_two_processes(save_the_same_slices, url, campaign)

    assert campaign_totals(engine, campaign).slices == ROUNDS
    assert [row.hits for row in buckets(engine)] == [ROUNDS] * len(SIGNATURES)


def test_two_processes_that_hit_the_same_buckets_lose_nothing_and_keep_ten_examples(engine: Engine, url: str) -> None:
    campaign = start_campaign(engine, a_campaign())

    in_two_processes(save_different_slices, url, campaign)

    assert [(row.hits, row.findings) for row in buckets(engine)] == [(6 * ROUNDS, 10)] * len(SIGNATURES)


def test_two_processes_that_find_the_same_new_buckets_at_once_share_them(engine: Engine, url: str) -> None:
    campaign = start_campaign(engine, a_campaign())

    in_two_processes(find_new_buckets_together, url, campaign)

    assert [(row.hits, row.findings) for row in buckets(engine)] == [(2, 2)] * (ROUNDS * len(SIGNATURES))
