"""`make chaos`: a campaign on a cluster that everything happens to, against the same campaign on one machine in peace.

The last line is JSON (docs/chaos.md); the exit code is 1 if anything was lost, counted twice, run twice at once, or left undone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from chaos_audit import CRASH, END, HANG, at_once, runs
from chaos_cluster import Cluster, cluster, new_folder
from chaos_core import ACCOUNT, NAME, PAUSE, install
from chaos_faults import LOST_SPOOL, Chaos, plan
from chaos_reckoning import FINDINGS, Reckoning, bucket_names, missing, reckon

from db.engine import open_database
from db.work import DONE, FAILED

SLICE_CASES = 250
"""Those of `entryfuzz fuzz`, so that both campaigns have the same slices."""
SLICES_PER_FAULT = 1
PAUSE_SECONDS = 0.01
TARGET = "snippets"
PATIENCE = 600.0
RUN_ENDS = {END: "whole", CRASH: "crash", HANG: "hang"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of the fault test."""

    seed: int
    faults: int

    @property
    def slices(self) -> int:
        """How many the campaign has."""
        return max(self.faults * SLICES_PER_FAULT, 12)

    @property
    def options(self) -> list[str]:
        """Those of both campaigns."""
        cases = self.slices * SLICE_CASES
        return ["--core", NAME, "--target", TARGET, "--seed", str(self.seed), "--cases", str(cases)]


def run(wanted: Plan, folder: Path) -> dict[str, Any]:
    """Do it, and return what the last line says."""
    package = install(folder / "package")
    say(f"the campaign in peace: {wanted.slices} slices of {SLICE_CASES} cases, seed {wanted.seed}")
    expected = in_peace(wanted, folder, package)
    account = folder / "account"
    with cluster(folder, package | {ACCOUNT: str(account), PAUSE: str(PAUSE_SECONDS)}) as made:
        campaign = int(made.ask("enqueue", *wanted.options, "--slice-cases", str(SLICE_CASES)))
        begun = time.monotonic()
        made.start()
        chaos = disturb(made, wanted, begun)
        rows = finish(made, wanted)
        seconds = time.monotonic() - begun
        found = reckon(made.engine, campaign)
        codes = made.end()
    undone = Counter({"not planned": wanted.slices - len(rows)} | Counter(row.state for row in rows if row.state != DONE))
    told = {
        "faults": chaos.done.total(),
        "slices": len(rows),
        "lost": missing(expected, found),
        "double_counted": missing(found, expected),
        "ran_twice_at_once": len(at_once(runs(account))),
        "not_done": +undone,
        "seed": wanted.seed,
        "kinds": dict(sorted(chaos.done.items())),
        "missed": chaos.missed,
        "buckets_differ": len(bucket_names(found) ^ bucket_names(expected)),
        "most_attempts": max((row.attempt for row in rows), default=0),
        "ended_by_themselves": {name: service.ended for name, service in made.services.items() if service.ended},
        "exit_codes": codes,
        "seconds": round(seconds),
    }
    return told | counted(found) | ways(account) | heard(made.log())


def counted(found: Reckoning) -> dict[str, Any]:
    """What the campaign found."""
    by_kind = Counter[str]()
    for (_, what, _), count in found.items():
        by_kind[what] += count
    hits = {kind: by_kind[kind] for kind in FINDINGS}
    return {"cases": by_kind["cases"], "buckets": len(bucket_names(found)), "hits": hits}


def ways(account: Path) -> dict[str, Any]:
    """How the runs of slices ended; a slice whose case crashes its engine is run again without it, by the same attempt."""
    ends = Counter(RUN_ENDS.get(each.what, "killed") for each in runs(account))
    return {"runs": ends.total(), "runs_ended": dict(sorted(ends.items()))}


def heard(log: str) -> dict[str, Any]:
    """What the program said about its troubles."""
    return {
        "spooled": len(set(re.findall(r"(slice \d+ of campaign \d+, attempt \d+): kept in", log))),
        "lost_to_the_disk": log.count(LOST_SPOOL),
        "refused": log.count("refused; the slice"),
        "tracebacks": log.count("Traceback (most recent call last)"),
    }


def in_peace(wanted: Plan, folder: Path, package: dict[str, str]) -> Reckoning:
    """The same campaign on this machine, with no server and no fault."""
    database = folder / "peace.db"
    environment = os.environ | package | {ACCOUNT: str(folder / "peace-account")}
    command = [sys.executable, "-m", "entryfuzz", "fuzz", "--jobs", "2", "--db", str(database), "--json", *wanted.options]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    engine = open_database(str(database))
    try:
        return reckon(engine, 1)
    finally:
        engine.dispose()


def disturb(made: Cluster, wanted: Plan, begun: float) -> Chaos:
    """Do every fault of the plan in its time."""
    random = Random(wanted.seed)
    chaos = Chaos(made, random)
    for fault in plan(random, wanted.faults):
        while done(made) < fault.after * wanted.slices:
            if time.monotonic() - begun > PATIENCE + 30 * wanted.faults:
                return chaos
            made.revive()
            time.sleep(0.2)
        say(f"{time.monotonic() - begun:6.1f} s  {done(made):3d} slices done  {fault.kind} ({fault.worker})")
        chaos.do(fault)
        made.revive()
    return chaos


def finish(made: Cluster, wanted: Plan) -> list[Any]:
    """Wait until every slice has ended, and return them."""
    deadline = time.monotonic() + PATIENCE
    while True:
        rows = made.planned()
        ended = sum(row.state in (DONE, FAILED) for row in rows)
        if ended == wanted.slices or time.monotonic() > deadline:
            return rows
        made.revive()
        time.sleep(0.5)


def done(made: Cluster) -> int:
    """How many slices are done."""
    return sum(row.state == DONE for row in made.planned())


def failed(told: dict[str, Any], wanted: Plan) -> bool:
    """Whether the run shows a fault of the program, or was none."""
    wrong = told["lost"] or told["double_counted"] or told["ran_twice_at_once"] or told["not_done"]
    return bool(wrong or told["missed"] or told["faults"] < wanted.faults) or not all(told["hits"].values())


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides the cases, the faults and their times")
    parser.add_argument("--faults", type=int, default=24)
    parser.add_argument("--keep", action="store_true", help="leave the logs and the account in their folder")
    options = parser.parse_args()
    wanted, folder = Plan(options.seed, options.faults), new_folder()
    try:
        told = run(wanted, folder)
    except pytest.skip.Exception as missing_program:
        say(str(missing_program))
        return 2
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    say(f"logs in {folder}" if options.keep else "")
    print(json.dumps(told))
    return int(failed(told, wanted))


if __name__ == "__main__":
    sys.exit(main())
