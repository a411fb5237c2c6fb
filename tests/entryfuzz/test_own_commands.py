"""`targets add`: somebody's own entry code, from a file to a finding that can be replayed."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from entryfuzz_program import Entryfuzz

from fuzzer import build
from fuzzer.targets import registry
from fuzzer.targets.own import placement

OWN = Path(__file__).parents[2] / "examples" / "own"
ELF, SOURCE, MANIFEST = (str(OWN / name) for name in ("hobby.elf", "hobby.S", "hobby.toml"))


@pytest.fixture(autouse=True)
def _no_target_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nor the starts of its scenarios: the tests give one name to different code, which no single command does."""
    monkeypatch.delenv("ENTRYFUZZ_TARGETS", raising=False)
    build._scenario.cache_clear()
    yield
    for target in registry.own():
        del registry.TARGETS[target.name]


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """The example's manifest without its long paths."""
    manifest = tmp_path / "quick.toml"
    text = Path(MANIFEST).read_text()
    manifest.write_text(re.sub(r"(?m)^(syscall|14) = .*\n", "", text))
    return str(manifest)


def test_the_example_is_added_and_its_mistake_is_found(entryfuzz: Entryfuzz) -> None:
    ran = entryfuzz("targets", "add", ELF, "--manifest", MANIFEST)

    assert ran.code == 1
    assert "✗ gs-base: While a C handler runs, GS.base is this CPU's per-CPU base" in ran.out
    assert "at       nmi+0x2f: call do_nmi" in ran.out
    assert "when     NMI at boundary 1 of system-call-from-user, before syscall_entry: swapgs" in ran.out
    assert "replay   entryfuzz case run entryfuzz-targets/hobby/cases/gs-base-1.json --trace" in ran.out


def test_json_has_the_numbers_and_the_findings(entryfuzz: Entryfuzz) -> None:
    found = entryfuzz("targets", "add", ELF, "--manifest", MANIFEST, "--json", "--name", "other").json()

    assert found["target"] == "other"
    assert (found["contract_violations"], found["paths"], found["events"]) == (37, 5, ["interrupt:0x20", "nmi"])
    assert found["runs"] == sum(2 * boundaries + 1 for boundaries in (9, 9, 6, 113, 113))
    (broken,) = found["broken"]
    assert broken["promise"] == "gs-base"
    assert broken["arrivals"] == [{"boundary": 1, "at": "syscall_entry", "instruction": "swapgs"}]
    assert Path(broken["case"]).is_file()


def test_every_command_knows_an_added_target(entryfuzz: Entryfuzz, quick: str) -> None:
    """In this process and in another one, which has nothing but the folder."""
    case = entryfuzz("targets", "add", ELF, "--manifest", quick, "--json").json()["differing"][0]["case"]

    listed = [each["name"] for each in entryfuzz("targets", "list", "--json").json()]
    replayed = subprocess.run(
        [sys.executable, "-m", "entryfuzz", "case", "run", case], capture_output=True, text=True, check=False, timeout=60
    )

    assert listed == [*registry.BUILT_IN, "hobby"]
    assert "target hobby, scenario kernel-idle, profile intel" in replayed.stdout, replayed.stderr


def test_a_repaired_handler_keeps_the_contract(entryfuzz: Entryfuzz, tmp_path: Path) -> None:
    """Asks the processor for GS (the sign of its base) where the example asks for the interrupted CS."""
    if shutil.which("as") is None or shutil.which("ld") is None:
        pytest.skip("GNU binutils are not installed")
    text = Path(SOURCE).read_text()
    repaired = tmp_path / "hobby.S"
    assert "        enter_and_call do_nmi\n" in text
    repaired.write_text(text.replace("        enter_and_call do_nmi\n", REPAIR))

    ran = entryfuzz("targets", "add", str(repaired), "--manifest", MANIFEST)

    assert "The contract holds: 5" in ran.out
    assert ran.code == 0


GUIDE = (OWN.parents[1] / "docs" / "bring-your-own-entry-code.md").read_text()
REPAIR = GUIDE.partition("```gas\n")[2].partition("```\n")[0]


def test_the_guide_shows_the_example_as_it_is(entryfuzz: Entryfuzz) -> None:
    """Its manifest, its output but for the seconds, and the places that code may lie at."""
    manifest = GUIDE.partition("```toml\n")[2].partition("```\n")[0]
    shown = GUIDE.partition(" prints:\n\n```\n")[2].partition("```\n")[0]

    out = entryfuzz("targets", "add", ELF, "--manifest", MANIFEST).out

    assert Path(MANIFEST).read_text().endswith(manifest)
    assert re.sub(r"in [0-9.]+ s", "", shown) == re.sub(r"in [0-9.]+ s", "", out)
    for window in placement.LINKED:
        assert f"{window.start:#x} to {window.end - 1:#x}" in " ".join(GUIDE.split())


def test_a_mistake_is_one_line_and_exit_code_2(entryfuzz: Entryfuzz, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(Path(MANIFEST).read_text().replace('"page_fault"', '"page_falt"'))

    ran = entryfuzz("targets", "add", ELF, "--manifest", str(wrong))

    assert ran.code == 2
    assert ran.err == f'{wrong}: gates.14.symbol: {ELF} has no symbol "page_falt"; did you mean "page_fault"?\n'
    assert not (tmp_path / "entryfuzz-targets").exists()


def test_source_without_an_assembler_is_a_mistake_that_says_so(
    entryfuzz: Entryfuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    ran = entryfuzz("targets", "add", SOURCE, "--manifest", MANIFEST)

    assert (ran.code, ran.err) == (2, f"{SOURCE}: GNU as not found on PATH; install binutils or give a linked ELF file\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("linux4", 'name: "linux4" cannot stand beside the target linux4; take another, or give --name', id="ours"),
        pytest.param("Mine!", '--name: "Mine!" is not a name; write small letters, digits and single dashes: my-kernel', id="no-name"),
    ],
)
def test_a_name_that_cannot_be_is_refused(entryfuzz: Entryfuzz, name: str, message: str) -> None:
    ran = entryfuzz("targets", "add", ELF, "--manifest", MANIFEST, "--name", name)

    assert ran.code == 2
    assert message in ran.err


def test_a_manifest_that_is_not_there_is_named(entryfuzz: Entryfuzz) -> None:
    ran = entryfuzz("targets", "add", ELF, "--manifest", "absent.toml")

    assert (ran.code, ran.err) == (2, "absent.toml: cannot be read: No such file or directory\n")


def test_the_folder_is_where_the_variable_says(entryfuzz: Entryfuzz, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TARGETS", str(tmp_path / "mine"))

    entryfuzz("targets", "add", ELF, "--manifest", quick)

    assert sorted(path.name for path in (tmp_path / "mine" / "hobby").iterdir()) == ["cases", "code.elf", "manifest.toml"]


def test_a_kept_target_that_is_damaged_is_left_out_and_named(entryfuzz: Entryfuzz, tmp_path: Path) -> None:
    place = tmp_path / "entryfuzz-targets" / "hobby"
    place.mkdir(parents=True)
    (place / "manifest.toml").write_text(Path(MANIFEST).read_text())
    (place / "code.elf").write_bytes(b"\x7fELF")

    ran = entryfuzz("targets", "list", "--json")

    assert ran.code == 0
    assert [each["name"] for each in ran.json()] == [*registry.BUILT_IN]
    assert ran.err.startswith("entryfuzz-targets/hobby/code.elf: not an ELF file that can be read")
    assert ran.err.endswith("the target hobby is left out: add it again, or remove entryfuzz-targets/hobby\n")


def test_adding_again_replaces_the_target_and_its_cases(entryfuzz: Entryfuzz, quick: str, tmp_path: Path) -> None:
    entryfuzz("targets", "add", ELF, "--manifest", quick)
    stale = tmp_path / "entryfuzz-targets" / "hobby" / "cases" / "gs-base-7.json"
    stale.write_text("{}")

    entryfuzz("targets", "add", ELF, "--manifest", quick)

    assert not stale.exists()


def test_no_generator_makes_cases_of_an_added_target(entryfuzz: Entryfuzz, quick: str) -> None:
    entryfuzz("targets", "add", ELF, "--manifest", quick)

    ran = entryfuzz("fuzz", "--target", "hobby", "--cases", "1")

    assert ran.code == 2
    assert "no generator makes cases for hobby" in ran.err


def test_running_a_case_again_shows_the_broken_promise(entryfuzz: Entryfuzz, quick: str, tmp_path: Path) -> None:
    manifest = tmp_path / "system-call.toml"
    manifest.write_text(Path(quick).read_text().replace("[system-calls]", '[system-calls]\nsyscall = "syscall_entry"'))
    case = entryfuzz("targets", "add", ELF, "--manifest", str(manifest), "--json").json()["broken"][0]["case"]

    ran = entryfuzz("case", "run", case)
    (broken,) = entryfuzz("case", "run", case, "--json").json()["contract"]

    assert ran.code == 1
    assert "unicorn 2.1.4: no divergence\n✗ gs-base: " in ran.out
    assert (broken["promise"], broken["at"], broken["instruction"]) == ("gs-base", "nmi+0x2f", "call do_nmi")


def test_code_that_never_comes_back_is_named(entryfuzz: Entryfuzz, quick: str, tmp_path: Path) -> None:
    """JMP to itself (eb fe) in the place of every IRETQ (48 cf)."""
    code = tmp_path / "hobby.elf"
    code.write_bytes(Path(ELF).read_bytes().replace(b"\x48\xcf", b"\xeb\xfe"))

    found = entryfuzz("targets", "add", str(code), "--manifest", quick, "--json")
    shown = entryfuzz("case", "run", found.json()["stuck"][0]["case"], "--json").json()

    assert found.code == 1
    # Every interrupt and NMI at the 9 boundaries of user code: not one returns.
    assert found.json()["stuck"][0]["scenario"] == "user-code"
    assert found.json()["stuck"][0]["cases"] == 2 * 9
    assert shown["spec"]["end"] == "did-not-end"


def test_a_stack_that_is_not_there_shuts_the_processor_down(entryfuzz: Entryfuzz, tmp_path: Path) -> None:
    """Without the stack in cpu0 the system call pushes below address 0, and each fault on the way to a handler brings the next."""
    manifest = tmp_path / "hobby.toml"
    manifest.write_text(Path(MANIFEST).read_text().replace('"cpu0+8" = "thread"', '"cpu0+8" = 0'))

    ran = entryfuzz("targets", "add", ELF, "--manifest", str(manifest))

    assert ran.code == 1
    assert "✗ survives: The processor does not shut down" in ran.out


def test_findings_can_be_kept_in_a_database(entryfuzz: Entryfuzz) -> None:
    entryfuzz("targets", "add", ELF, "--manifest", MANIFEST, "--db", "found.db")

    kept = entryfuzz("divergences", "list", "--target", "hobby", "--db", "found.db", "--json").json()

    assert ("contract", 37) in [(bucket["kind"], bucket["hits"]) for bucket in kept]
