"""The fault test in short, and that its measures see what they are meant to see."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import chaos
import pytest
from chaos_audit import Account, at_once, runs
from chaos_cluster import no_room
from chaos_faults import FAULTS, plan
from chaos_reckoning import Reckoning, missing
from servers import Server

from db.records import SliceResult
from db.work_records import Held
from workers.spool import keep

FAULTS_IN_SHORT = 8
SEED = 2
HELD = Held(1, 2, 1, "worker")
RESULT = SliceResult(2, 0, 0.0, {}, {}, 0, {}, [])
HOLDING = """
import sys, time
from pathlib import Path
from chaos_audit import Account
with Account(Path(sys.argv[1])).running(7):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def account(tmp_path: Path) -> Path:
    return tmp_path / "account"


def holder(account: Path) -> subprocess.Popen[str]:
    """A process that runs slice 7 until it is killed."""
    command = [sys.executable, "-c", HOLDING, str(account)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_a_slice_that_two_processes_run_is_seen(account: Path) -> None:
    with holder(account) as process:
        with Account(account).running(7):
            pass
        process.kill()

    assert [run.number for run in at_once(runs(account))] == [7]


def test_a_slice_that_is_run_after_the_death_of_its_process_ran_once_at_a_time(account: Path) -> None:
    with holder(account) as process:
        process.kill()
    with Account(account).running(7):
        pass

    assert [run.what for run in runs(account)] == ["begin", "end"]
    assert at_once(runs(account)) == []


def test_times_that_overlap_are_seen_without_the_lock(account: Path) -> None:
    account.write_text("1.0 10 5 begin\n2.0 10 5 beat\n1.5 11 5 begin\n1.6 12 6 begin\n3.0 11 5 end\n3.0 12 6 end\n3.5 13 5 begin\n")

    assert [(run.pid, run.number) for run in at_once(runs(account))] == [(11, 5)]


def test_what_is_lost_and_what_is_counted_twice_is_told_apart() -> None:
    expected: Reckoning = Counter({(0, "divergence", "a"): 3, (1, "divergence", "b"): 1})
    found: Reckoning = Counter({(0, "divergence", "a"): 2, (1, "divergence", "b"): 2, (1, "crash", "c"): 1})

    assert (missing(expected, found), missing(found, expected)) == (1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_has_every_kind_of_fault_and_is_the_same_each_time(seed: int) -> None:
    faults = plan(Random(seed), 24)

    assert len(faults) == 24
    assert {fault.kind for fault in faults} == set(FAULTS)
    assert faults == plan(Random(seed), 24)


def test_where_there_is_no_room_no_result_can_be_kept(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "slice-1-1-1.json").touch()

    with no_room(spool), pytest.raises(OSError, match="spool"):
        keep(spool, HELD, RESULT)

    assert [file.name for file in spool.iterdir()] == ["slice-1-1-1.json"]


@pytest.mark.slow
def test_a_campaign_that_everything_happens_to_finds_what_it_finds_in_peace(postgres: Server, redis: Server, tmp_path: Path) -> None:
    """The two servers of other tests only show, by skipping this one, that the programs are there."""
    wanted = chaos.Plan(SEED, FAULTS_IN_SHORT)

    told = chaos.run(wanted, tmp_path)

    assert not chaos.failed(told, wanted), told
