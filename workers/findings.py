"""From a case that shows something to what the database keeps of it."""

from __future__ import annotations

from db.records import NewBucket, NewCase, NewFinding
from fuzzer.case import Case, encode
from fuzzer.compare import Comparison
from fuzzer.cores.core import Core
from fuzzer.explain import Explanation
from fuzzer.observation_json import differences_to_json, to_json
from fuzzer.signature import Signature
from reference.image import Image, Observation


def where(explanation: Explanation | None) -> str:
    """The instruction at which a core parts from the specification, for one case."""
    return f"{explanation.text} at {explanation.address:#x}, boundary {explanation.step}" if explanation else ""


def new_finding(
    case: Case,
    image: Image,
    core: Core,
    spec: Observation,
    observation: Observation,
    comparison: Comparison,
    signature: Signature,
    where: str,
) -> NewFinding:
    """What is stored of a case that diverges."""
    return NewFinding(
        bucket=bucket_of(signature),
        case=NewCase(encode(case), case.target, case.scenario, case.profile, where),
        core_version=core.version,
        spec=to_json(spec, image),
        observed=to_json(observation, image),
        differences=differences_to_json(comparison.differences),
    )


def bucket_of(signature: Signature) -> NewBucket:
    """The bucket that a signature names."""
    return NewBucket(
        signature=signature.text,
        kind=signature.kind,
        area=signature.area,
        core=signature.core,
        profile=signature.profile,
        by=signature.by,
        cause=signature.cause,
        rule=signature.rule,
        expected=signature.expected,
        observed=signature.observed,
        title=signature.title,
    )
