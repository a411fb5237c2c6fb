"""The command line as a person uses it: arguments in, exit code, stdout and stderr out; the engine and the database are real."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from db.engine import open_database
from db.records import NewBucket, NewCampaign, NewCase, NewFinding, SliceResult
from db.store import save_slice, start_campaign
from entryfuzz.cli import main
from entryfuzz.replay import Replay, find_core, replay
from fuzzer.case import encode
from fuzzer.case_json import parse
from fuzzer.observation_json import differences_to_json, to_json

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Entryfuzz = Callable[..., Ran]


def program() -> Entryfuzz:
    """The program, as a function of its arguments."""

    def run(*arguments: str, **options: Any) -> Ran:
        result = CliRunner().invoke(main, list(arguments), catch_exceptions=False, prog_name="entryfuzz", **options)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@dataclass(frozen=True)
class Stored:
    """A database with one bucket, made from an example."""

    url: str
    bucket: str
    case: str
    signature: str


def finding_of(replayed: Replay) -> NewFinding:
    """The finding that a diverging replay makes."""
    (run,) = replayed.runs
    sign, case, image = run.signature, replayed.case, replayed.image
    assert sign is not None
    bucket = NewBucket(
        signature=sign.text, kind=sign.kind, area=sign.area, core=sign.core, profile=sign.profile, by=sign.by, cause=sign.cause,
        rule=sign.rule, expected=sign.expected, observed=sign.observed, title=sign.title,
    )  # fmt: skip
    return NewFinding(
        bucket=bucket,
        case=NewCase(encode(case), case.target, case.scenario, case.profile, ""),
        core_version=run.version,
        spec=to_json(replayed.spec, image),
        observed=to_json(run.observation, image),
        differences=differences_to_json(run.comparison.differences),
    )


def store_example(name: str, url: str) -> Stored:
    """Run an example that diverges and store it with 3 hits."""
    finding = finding_of(replay(parse((EXAMPLES / name).read_text(), name), [find_core("unicorn")]))
    engine = open_database(url)
    campaign = start_campaign(engine, NewCampaign([finding.case.target], "unicorn", "2.1.4", ["intel"], 1, 10, {}))
    save_slice(engine, campaign, SliceResult(0, 10, 1.0, {}, {}, 0, {finding.bucket.signature: 3}, [finding]))
    engine.dispose()
    return Stored(url, finding.bucket.id, finding.case.digest, finding.bucket.signature)
