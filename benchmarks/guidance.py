"""What guidance finds against random with the same budget: `python benchmarks/guidance.py buckets|planted`.

Processor time is that of this process and its children, explaining included. Buckets are per profile, causes are not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import guidance_child

import workers.guided_child
from db.records import SliceResult
from fuzzer.build import build
from fuzzer.case import decode
from fuzzer.compare import compare
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.generate.generator import generate
from reference.profiles import PROFILES
from reference.run import run
from workers.guided import FRESH, GuidedSlice
from workers.slices import Slice

ARMS = {"random": {}, "guided": {"instrumented": False}, "guided, instrumented": {"instrumented": True}}
PROFILE_NAMES = tuple(PROFILES)
RANDOM_CASES = 250
GUIDED_CASES = 2500
EXPLAINING = 1


def processor_time() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def ignore(number: int, place: int) -> None:
    pass


@dataclass
class Point:
    executions: int
    seconds: float
    buckets: int
    causes: int
    hits: int


def results(arm: str, target: str, seed: int, core: UnicornCore) -> Iterator[SliceResult]:
    if arm == "random":
        number = 0
        while True:
            yield Slice(number, target, PROFILE_NAMES, seed, number * RANDOM_CASES, RANDOM_CASES).run([core], ignore)
            number += 1
    corpus: tuple[bytes, ...] = ()
    number = 0
    while True:
        work = GuidedSlice(number, target, PROFILE_NAMES, ("unicorn",), seed, number * FRESH, GUIDED_CASES, corpus)
        result = replace(work, **ARMS[arm]).run([core], ignore)
        corpus = tuple(sorted({*corpus, *result.corpus}))
        yield result.found
        number += 1


def course(arm: str, target: str, seed: int, seconds: float) -> list[Point]:
    core, begun = UnicornCore(), processor_time()
    executions = hits = 0
    buckets: set[str] = set()
    causes: set[tuple[str, ...]] = set()
    points = []
    for result in results(arm, target, seed, core):
        executions += result.cases
        hits += sum(result.hits.values())
        buckets.update(result.hits)
        for finding in result.findings:
            one = finding.bucket
            causes.add((one.area, one.kind, one.by, one.cause, one.expected, one.observed))
        points.append(Point(executions, processor_time() - begun, len(buckets), len(causes), hits))
        if points[-1].seconds > seconds:
            return points
    raise AssertionError


def buckets(args: argparse.Namespace) -> None:
    for target in args.targets:
        for seed in args.seeds:
            for arm in ARMS:
                for point in course(arm, target, seed, args.seconds):
                    print(json.dumps({"target": target, "seed": seed, "arm": arm, **vars(point)}), flush=True)


def planted(args: argparse.Namespace) -> None:
    guidance_child.register()
    workers.guided_child.CHILD = (sys.executable, str(Path(__file__).parent / "guidance_child.py"))
    clean = UnicornCore()
    for name in args.mutants or guidance_child.planted():
        for seed in args.seeds:
            for arm in ("random", "guided"):
                begun = processor_time()
                found = HUNTS[arm](name, seed, args.most, clean)
                print(
                    json.dumps({"mutant": name, "seed": seed, "arm": arm, "executions": found, "seconds": processor_time() - begun}),
                    flush=True,
                )


def shows(name: str, data: bytes, clean: UnicornCore) -> bool:
    """Where the planted core differs, the core as it is does not: it is the planted bug."""
    image = build(decode(data))
    spec = run(image)
    usual = compare(image, spec, next(iter(clean.run([image]))))
    return usual.comparable and not usual.differences


def hunt_at_random(name: str, seed: int, most: int, clean: UnicornCore) -> int | None:
    wrong = guidance_child.planted()[name]()
    for number in range(most):
        image = build(generate(seed, "linux4", PROFILE_NAMES, number))
        spec = run(image)
        if compare(image, spec, next(iter(wrong.run([image])))).differences:
            usual = compare(image, spec, next(iter(clean.run([image]))))
            if usual.comparable and not usual.differences:
                return number + 1
    return None


def hunt_guided(name: str, seed: int, most: int, clean: UnicornCore) -> int | None:
    from tempfile import TemporaryDirectory

    from fuzzer.guided.job import FOUND, INPUTS, Job

    work = GuidedSlice(0, "linux4", PROFILE_NAMES, (name,), seed, 0, most)
    with TemporaryDirectory() as place:
        for folder in (INPUTS, FOUND):
            (Path(place) / folder).mkdir()
        workers.guided_child.write_inputs(Path(place) / INPUTS, work.inputs())
        reading, writing = os.pipe()
        job = Job(place, "linux4", PROFILE_NAMES, (name,), seed, 0, most, writing, os.getpid(), instrumented=False)
        with workers.guided_child.Child(job, reading) as child:
            for told in child:
                if told.divergent and shows(name, bytes.fromhex(told.divergent), clean):
                    return told.number + 1
    return None


HUNTS = {"random": hunt_at_random, "guided": hunt_guided}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("buckets")
    one.add_argument("--targets", nargs="+", default=["linux4", "snippets"])
    one.add_argument("--seeds", nargs="+", type=int, default=[1])
    one.add_argument("--seconds", type=float, default=300.0)
    one.set_defaults(do=buckets)
    other = commands.add_parser("planted")
    other.add_argument("--mutants", nargs="+", choices=list(guidance_child.planted()))
    other.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    other.add_argument("--most", type=int, default=5000)
    other.set_defaults(do=planted)
    args = parser.parse_args()
    begun = time.monotonic()
    args.do(args)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
