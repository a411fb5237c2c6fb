"""Who is wrong follows from who sides with whom: silicon first, then the specification with an engine, then engines of two origins."""

from __future__ import annotations

import pytest

import fuzzer.verdict
from fuzzer.settled import Settled, settled
from fuzzer.verdict import Verdict, judge
from fuzzer.vote import Stance, Vote

FAMILIES = {"unicorn": "qemu", "qemu": "qemu", "bochs": "bochs", "kvm": "kvm", "silicon": "silicon"}
ACCUSED = Vote("unicorn", "2", Stance.ACCUSED, "completes", camp=0)
SPEC, SAME, OTHER, EARLIER, SILENT = Stance.SPECIFICATION, Stance.ACCUSED, Stance.NEITHER, Stance.EARLIER, Stance.SILENT


def verdict(by: str = "engine", **stances: Stance | tuple[Stance, int]) -> Verdict:
    """The verdict where unicorn is accused and the others stand like this; a number is the camp of those with neither side."""
    votes = [ACCUSED]
    for engine, stance in stances.items():
        stance, camp = stance if isinstance(stance, tuple) else (stance, 0 if stance is SAME else -1)
        votes.append(Vote(engine, "1", stance, "something", camp))
    return judge(votes, by, FAMILIES, "a rule", "completes").verdict


@pytest.mark.parametrize(
    ("stances", "expected"),
    [
        pytest.param({"silicon": SPEC, "qemu": SAME, "bochs": SAME}, Verdict.ENGINE_DEFECT, id="silicon-outweighs-every-emulator"),
        pytest.param({"silicon": SAME, "qemu": SPEC, "bochs": SPEC}, Verdict.SPEC_SUSPECT, id="silicon-against-the-specification"),
        pytest.param({"bochs": SPEC}, Verdict.ENGINE_DEFECT, id="one-independent-engine-with-the-specification"),
        pytest.param({"qemu": SAME, "bochs": SPEC}, Verdict.ENGINE_DEFECT, id="a-relative-that-agrees-with-the-accused-proves-nothing"),
        pytest.param({"qemu": SPEC}, Verdict.ENGINE_DEFECT, id="a-relative-that-was-mended"),
        pytest.param({"bochs": SAME}, Verdict.SPEC_SUSPECT, id="two-origins-against-the-specification"),
        pytest.param({"bochs": (OTHER, 1), "kvm": (OTHER, 1)}, Verdict.SPEC_SUSPECT, id="two-origins-agree-on-a-third-thing"),
        pytest.param({"bochs": (OTHER, 1), "kvm": (OTHER, 2)}, Verdict.DISPUTED, id="they-all-differ"),
        pytest.param({"qemu": SAME}, Verdict.DISPUTED, id="a-relative-alone-decides-nothing"),
        pytest.param({"qemu": SILENT, "bochs": EARLIER}, Verdict.UNHEARD, id="nobody-has-a-vote"),
    ],
)
def test_the_verdict_on_an_engine(stances: dict[str, Stance | tuple[Stance, int]], expected: Verdict) -> None:
    assert verdict(**stances) is expected


@pytest.mark.parametrize(
    ("stances", "expected"),
    [
        pytest.param({"qemu": SPEC, "bochs": SPEC}, Verdict.ADAPTER, id="engines-that-deliver-themselves-do-as-the-manual-says"),
        pytest.param({"qemu": SILENT}, Verdict.ADAPTER, id="nobody-else-does-it-so"),
        pytest.param({"bochs": SAME}, Verdict.SPEC_SUSPECT, id="an-engine-does-it-like-our-adapter"),
    ],
)
def test_the_verdict_on_what_our_adapter_did(stances: dict[str, Stance | tuple[Stance, int]], expected: Verdict) -> None:
    assert verdict(by="adapter", **stances) is expected


def test_a_dispute_names_who_stands_where() -> None:
    votes = [ACCUSED, Vote("qemu", "1", SAME, "completes", 0), Vote("bochs", "1", OTHER, "#PF(U)", 1)]

    judged = judge(votes, "engine", FAMILIES, "a rule", "completes")

    assert judged.verdict is Verdict.DISPUTED
    assert judged.why == "bochs: otherwise than either side; qemu: as unicorn, of one origin with it"


def test_what_the_manual_settles_is_a_shared_defect_with_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Settled("a rule", "completes", "SDM Vol. 2A, IRET: the sentence")
    monkeypatch.setattr(fuzzer.verdict, "settled", lambda *words: settled(*words, table=(entry,)))

    judged = judge([ACCUSED, Vote("bochs", "1", SAME, "completes", 0)], "engine", FAMILIES, "a rule", "completes")

    assert judged.verdict is Verdict.ENGINE_DEFECT
    assert "the sentence" in judged.why


def test_a_settlement_covers_only_what_it_names() -> None:
    entry = Settled("a rule", "completes", "sentence")

    assert settled("a rule", "completes", table=(entry,)) == "sentence"
    assert settled("a rule", "#NP(selector)", table=(entry,)) == ""
    assert settled("another rule", "completes", table=(entry,)) == ""
