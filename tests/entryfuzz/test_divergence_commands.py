"""`entryfuzz divergences`: what the database holds, as a list and one by one."""

import pytest
from entryfuzz_program import Entryfuzz, Stored


class TestList:
    def test_json_has_the_keys_that_others_build_on(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        (row,) = entryfuzz("divergences", "list", "--db", stored.url, "--json").json()

        assert {"id", "area", "kind", "core", "signature", "hits"} <= row.keys()
        assert (row["id"], row["signature"], row["hits"]) == (stored.bucket, stored.signature, 3)

    def test_a_line_for_each_bucket(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        out = entryfuzz("divergences", "list", "--db", stored.url).out

        assert stored.bucket in out
        assert "expected #SS(0), observed #GP(0)" in out

    @pytest.mark.parametrize(
        ("option", "value", "hits"),
        [
            ("--area", "fault", 1), ("--area", "gs", 0),
            ("--core", "unicorn", 1),
            ("--target", "snippets", 1), ("--target", "linux4", 0),
            ("--status", "open", 1), ("--status", "fixed", 0),
            ("--since", "1h", 1), ("--since", "2099-01-01", 0),
            ("--limit", "1", 1),
        ],
    )  # fmt: skip
    def test_options_narrow_the_list(self, entryfuzz: Entryfuzz, stored: Stored, option: str, value: str, hits: int) -> None:
        assert len(entryfuzz("divergences", "list", "--db", stored.url, "--json", option, value).json()) == hits

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--area", "memory"), 'there is no area "memory"; known: gs'),
            (("--core", "quemu"), 'there is no core "quemu"; known: unicorn'),
            (("--since", "yesterday"), '"yesterday" is no moment'),
            (("--since", "999999w"), '"999999w" is no moment'),
            (("--limit", "0"), "0 is not in the range"),
            (("--db", "missing.db"), "missing.db: there is no such database"),
            (("--db", "mysql://x"), "not supported"),
        ],
    )
    def test_mistakes_are_one_line(self, entryfuzz: Entryfuzz, arguments: tuple[str, ...], message: str) -> None:
        ran = entryfuzz("divergences", "list", *arguments)

        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err
        assert ran.err.count("\n") == 1


class TestShow:
    def test_everything_a_person_needs_to_judge_it(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        out = entryfuzz("divergences", "show", stored.bucket[:6], "--db", stored.url).out

        assert f"{stored.bucket}  memory access: expected #SS(0), observed #GP(0)" in out
        assert "a stack access at a non-canonical address" in out
        assert "the engine of unicorn, version 2.1.4" in out
        assert "* rsp            0x800000001000" in out
        assert "≠ rip" in out
        assert f"entryfuzz case run {stored.bucket} --trace --db {stored.url}" in out
        (step,) = [line for line in out.splitlines() if line.startswith("▶")]
        assert "push rax" in step

    def test_json_has_the_bucket_and_examples_with_case_files(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        result = entryfuzz("divergences", "show", stored.bucket, "--db", stored.url, "--json").json()

        assert result["id"] == stored.bucket
        assert result["examples"][0]["file"]["registers"]["rsp"] == "0x800000001000"
        assert result["examples"][0]["spec"]["fault"] == "#SS(0x0)"

    def test_the_command_it_prints_replays_it(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        replay = entryfuzz("divergences", "show", stored.bucket, "--db", stored.url, "--json").json()["replay"]

        assert entryfuzz(*replay.split()[1:]).code == 1

    def test_an_unknown_id_is_one_line(self, entryfuzz: Entryfuzz, stored: Stored) -> None:
        ran = entryfuzz("divergences", "show", "ffffffffffff", "--db", stored.url)

        assert ran.code == 2
        assert "no bucket of" in ran.err
