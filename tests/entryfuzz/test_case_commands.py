"""`entryfuzz case`: hand-written files and stored cases."""

import json
from pathlib import Path

import pytest
from entryfuzz_program import EXAMPLES, Entryfuzz, Stored

from fuzzer.targets.registry import TARGETS

PUSH = str(EXAMPLES / "push-non-canonical.json")
NMI = str(EXAMPLES / "nmi-in-syscall-gap.json")


class TestRun:
    def test_a_divergence_is_exit_1_and_told_with_its_rule(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz("case", "run", PUSH)

        assert ran.code == 1
        assert "expected #SS(0), observed #GP(0)" in ran.out
        assert "a stack access at a non-canonical address" in ran.out
        assert "≠ first exception" in ran.out

    def test_agreement_is_exit_0(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz("case", "run", NMI)

        assert ran.code == 0
        assert "no divergence" in ran.out
        assert "≠" not in ran.out

    def test_a_non_canonical_gs_base_must_be_refused_by_wrmsr(self, entryfuzz: Entryfuzz) -> None:
        result = entryfuzz("case", "run", str(EXAMPLES / "wrmsr-gs-base-non-canonical.json"), "--json").json()

        assert result["spec"]["fault"] == "#GP(0x0)"
        assert result["divergences"][0]["area"] == "gs"
        assert result["divergences"][0]["by"] == "engine"

    def test_json_has_an_observation_for_each_side(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz("case", "run", PUSH, "--json")

        result = ran.json()
        assert ran.code == 1
        for observation in (result["spec"], result["cores"]["unicorn"]):
            assert {"end", "registers", "fault", "memory"} <= observation.keys()
        assert [each["core"] for each in result["divergences"]] == ["unicorn"]
        assert {"field": "rip", "expected": "0xffffffff810000c2", "observed": "0xffffffff810000d2"} in result["divergences"][0][
            "differences"
        ]

    def test_json_without_a_divergence_has_an_empty_list(self, entryfuzz: Entryfuzz) -> None:
        assert entryfuzz("case", "run", NMI, "--json").json()["divergences"] == []

    def test_trace_marks_the_first_step_that_differs(self, entryfuzz: Entryfuzz) -> None:
        lines = entryfuzz("case", "run", PUSH, "--trace").out.splitlines()

        (step,) = [line for line in lines if line.startswith("▶")]
        assert "push rax" in step
        assert "raises #SS(0x0)" in step
        assert "raises #GP(0x0)" in step

    def test_trace_names_the_words_of_a_frame(self, entryfuzz: Entryfuzz) -> None:
        out = " ".join(entryfuzz("case", "run", NMI, "--trace").out.split())

        assert f"NMI frame: RIP]={TARGETS['linux4'].symbols['system_call']:#x}" in out
        assert "delivers NMI" in out

    def test_trace_as_json_has_the_steps_of_both_sides(self, entryfuzz: Entryfuzz) -> None:
        trace = entryfuzz("case", "run", PUSH, "--trace", "--json").json()["trace"]

        assert trace["spec"][0]["instruction"] == "push rax"
        assert trace["spec"][0]["outcome"] == "raises #SS(0x0)"
        assert trace["cores"]["unicorn"][0]["outcome"] == "raises #GP(0x0)"

    def test_a_case_may_come_from_standard_input(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz("case", "run", "-", input='{"scenario": "user", "code": "90"}')

        assert ran.code == 0

    def test_what_is_not_modelled_is_not_compared(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz("case", "run", "-", input='{"scenario": "user", "code": "0f 58 c0"}')

        assert ran.code == 0
        assert "not compared" in ran.out

    @pytest.mark.parametrize("name", ["bucket", "case"])
    def test_a_stored_case_is_named_by_its_first_digits(self, entryfuzz: Entryfuzz, stored: Stored, name: str) -> None:
        ran = entryfuzz("case", "run", getattr(stored, name)[:8], "--db", stored.url)

        assert ran.code == 1
        assert stored.case[:16] in ran.out

    def test_the_database_may_be_named_by_the_environment(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        assert entryfuzz("case", "run", stored.bucket, env={"ENTRYFUZZ_DB": stored.url}).code == 1


class TestMistakes:
    def test_a_wrong_file_is_one_line_and_exit_2(self, entryfuzz: Entryfuzz, tmp_path: Path) -> None:
        (tmp_path / "case.json").write_text('{"scenario": "user", "registers": {"rsp": "0x12g"}}')

        ran = entryfuzz("case", "run", "case.json")

        assert (ran.code, ran.out) == (2, "")
        assert ran.err == 'case.json: registers.rsp: "0x12g" is not a 64-bit hex number; write 18 or "0x12"\n'

    def test_a_file_that_is_no_text(self, entryfuzz: Entryfuzz, tmp_path: Path) -> None:
        (tmp_path / "case.json").write_bytes(b"\xff\xfe\x00")

        assert entryfuzz("case", "run", "case.json").err == "case.json: not text; a case file is JSON in UTF-8\n"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            pytest.param("missing.json", "missing.json: there is no such file, and it is no id", id="no-such-file"),
            pytest.param("abcdef", "entryfuzz.db: there is no such database", id="no-database"),
        ],
    )
    def test_what_is_not_there(self, entryfuzz: Entryfuzz, name: str, message: str) -> None:
        ran = entryfuzz("case", "run", name)

        assert ran.code == 2
        assert ran.err.startswith(message)
        assert ran.err.count("\n") == 1

    def test_an_id_that_nothing_has(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        ran = entryfuzz("case", "run", "0000", "--db", stored.url)

        assert ran.code == 2
        assert "no bucket and no case" in ran.err

    def test_reading_makes_no_database(self, entryfuzz: Entryfuzz, tmp_path: Path) -> None:
        entryfuzz("case", "run", "abcdef")

        assert list(tmp_path.iterdir()) == []


class TestShow:
    def test_a_stored_case_becomes_a_file_that_runs_the_same(self, entryfuzz: Entryfuzz, stored: Stored, tmp_path: Path) -> None:
        shown = entryfuzz("case", "show", stored.case, "--db", stored.url)
        (tmp_path / "mine.json").write_text(shown.out)

        ran = entryfuzz("case", "run", "mine.json", "--json")

        assert ran.json()["case"] == stored.case
        assert ran.code == 1


class TestSchema:
    def test_the_schema_is_json_schema(self, entryfuzz: Entryfuzz) -> None:
        schema = json.loads(entryfuzz("case", "schema").out)

        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert "registers" in schema["properties"]
