"""The command line as a person uses it: arguments in, exit code, stdout and stderr out; the engine and the database are real."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from db.engine import open_database
from db.records import NewBucket, NewCampaign, NewCase, NewFinding, SliceResult
from db.store import save_slice, start_campaign
from entryfuzz.cli import main
from entryfuzz.replay import Replay, load_core, replay
from entryfuzz.views.verdict import differences_json
from fuzzer.case import encode
from fuzzer.case_json import parse
from fuzzer.observation_json import to_json

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


@pytest.fixture
def entryfuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entryfuzz:
    """Runs a command line in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENTRYFUZZ_DB", raising=False)

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
    assert run.explanation is not None
    sign, case = run.explanation.signature, replayed.case
    bucket = NewBucket(
        signature=sign.text, kind=sign.kind, area=sign.area, core=sign.core, profile=sign.profile, by=sign.by, cause=sign.cause,
        rule=sign.rule, expected=sign.expected, observed=sign.observed, title=sign.title,
    )  # fmt: skip
    return NewFinding(
        bucket=bucket,
        case=NewCase(encode(case), case.target, case.scenario, case.profile, ""),
        core_version=run.version,
        spec=to_json(replayed.spec),
        observed=to_json(run.observation),
        differences=differences_json(run.comparison),
    )


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """The push to a non-canonical address, found 3 times."""
    file = EXAMPLES / "push-non-canonical.json"
    finding = finding_of(replay(parse(file.read_text(), file.name), [load_core("unicorn")]))
    url = str(tmp_path / "stored.db")
    engine = open_database(url)
    campaign = NewCampaign(["snippets"], "unicorn", "2.1.4", ["intel"], 1, 10, {})
    result = SliceResult(0, 10, 1.0, {}, {}, 0, {finding.bucket.signature: 3}, [finding])
    save_slice(engine, start_campaign(engine, campaign), result)
    engine.dispose()
    return Stored(url, finding.bucket.id, finding.case.digest, finding.bucket.signature)
