"""The program as a whole: mistakes are one line, bugs are tracebacks, and starting it costs nothing."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from entryfuzz_program import Entryfuzz

from entryfuzz.cli import Program, main
from fuzzer.cores.core import CoreError

HEAVY = ("sqlalchemy", "unicorn", "rich", "iced_x86", "alembic", "jsonschema", "redis", "rq")


def test_help_imports_nothing_heavy() -> None:
    script = f"""
import sys
from entryfuzz.cli import main
main(["--help"], standalone_mode=False)
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "Usage:" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("fuzz", "--frobnicate"), "No such option"),
        (("fuzz", "--target", "linux5"), 'there is no target "linux5"; known: linux4, snippets'),
        (("fuzz", "--profile", "via"), 'there is no profile "via"; known: intel, amd'),
        (("fuzz", "--core", "via"), 'there is no core "via"; known: unicorn'),
        (("fuzz", "--cases", "5", "--seconds", "5"), "give one"),
        (("fuzz", "--cases", "0"), "0 is not in the range"),
        (("targets", "show", "linux5"), 'there is no target "linux5"'),
        (("case", "run"), "Missing argument"),
        (("enqueue", "--target", "snippets"), "say when to stop: --cases N, or --forever"),
        (("enqueue", "--cases", "5", "--forever"), "say when to stop: --cases N, or --forever"),
        (("enqueue", "--forever", "--slice-cases", "0"), "0 is not in the range"),
        (("worker", "--redis", "localhost"), "not a Redis URL"),
        (("worker", "--spool", "/proc/spool"), "/proc/spool: "),
        (("status", "--db", "nothing.db"), "nothing.db: there is no such database"),
        (("status", "--watch", "--json"), "give one"),
        (("db", "upgrade", "--db", "mysql://host/name"), "databases of this kind are not supported"),
        (("db", "upgrade", "--db", "postgresql://user:secret@localhost:1/name", "--wait", "0"), "postgresql://user:***@localhost:1/name: "),
        (("bench", "--seconds", "0"), "0.0 is not in the range"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_2(entryfuzz: Entryfuzz, arguments: tuple[str, ...], message: str) -> None:
    ran = entryfuzz(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "secret" not in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [("worker", "redis://localhost:1/0: Error 111"), ("scheduler", "check that Redis runs and that the URL is right")],
)
def test_a_redis_that_stays_away_is_a_mistake(entryfuzz: Entryfuzz, monkeypatch: pytest.MonkeyPatch, command: str, message: str) -> None:
    for patience in ("workers.worker.OUTAGE_SECONDS", "entryfuzz.cluster._SERVER_SECONDS"):
        monkeypatch.setattr(patience, 0.0)

    ran = entryfuzz(command, "--redis", "redis://user:secret@localhost:1/0")

    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "secret" not in ran.err
    assert ran.err.count("\n") == 1


def failing_with(error: BaseException) -> Program:
    program = Program("program")

    @program.command()
    def fail() -> None:
        raise error

    return program


def test_an_engine_that_fails_is_one_line() -> None:
    result = CliRunner().invoke(failing_with(CoreError("unicorn: broke\nits rules")), ["fail"])

    assert (result.exit_code, result.stderr) == (2, "unicorn: broke its rules\n")


def test_an_interrupted_command_is_one_line() -> None:
    result = CliRunner().invoke(failing_with(KeyboardInterrupt()), ["fail"])

    assert result.exit_code == 2
    assert "interrupted" in result.stderr


def test_a_bug_of_ours_is_not_caught() -> None:
    with pytest.raises(RuntimeError):
        CliRunner().invoke(failing_with(RuntimeError("bug")), ["fail"], catch_exceptions=False)


def test_targets_are_listed_with_their_scenarios(entryfuzz: Entryfuzz) -> None:
    rows = {row["name"]: row for row in entryfuzz("targets", "list", "--json").json()}

    assert "nmi-from-kernel" in rows["linux4"]["scenarios"]
    assert "linux4" in entryfuzz("targets", "list").out


def test_a_target_is_shown_with_symbols(entryfuzz: Entryfuzz) -> None:
    out = entryfuzz("targets", "show", "linux4").out

    assert "debug-in-syscall-gap" in out
    assert "paranoid_entry:" in out
    assert "call paranoid_entry" in out


def test_a_target_as_json_has_scenarios_symbols_and_disassembly(entryfuzz: Entryfuzz) -> None:
    shown = entryfuzz("targets", "show", "linux4", "--json").json()

    first = shown["disassembly"][0]
    assert (first["symbol"], first["code"], first["text"]) == ("divide_error", "0f1f00", "nop [rax]")
    assert {"name", "summary", "cpl", "rip"} <= shown["scenarios"][0].keys()


def test_handlers_with_the_same_code_are_shown_once(entryfuzz: Entryfuzz) -> None:
    assert len(entryfuzz("targets", "show", "snippets").out.splitlines()) < 30


def test_cores_are_listed_with_their_version(entryfuzz: Entryfuzz) -> None:
    rows = {row["name"]: row for row in entryfuzz("cores", "list", "--json").json()}

    assert rows["unicorn"]["version"].startswith("2.")
    assert rows["unicorn"]["delivers_events"] is False
    assert "unicorn" in entryfuzz("cores", "list").out


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        found |= commands(command, (*path, name)) if isinstance(command, click.Group) else {(*path, name): command}
    return found


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_explains_itself_and_each_of_its_options(entryfuzz: Entryfuzz, path: tuple[str, ...]) -> None:
    command = commands()[path]

    assert command.help
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []
    assert entryfuzz(*path, "--help").code == 0


def test_every_listing_has_json() -> None:
    listings = [
        path
        for path in commands()
        if path[-1] in ("list", "run", "history", "check", "fuzz", "bench", "vote", "silicon-check", "enqueue", "status")
        or path[0] in ("corpus", "divergences", "sweep", "targets")
    ]

    assert sorted(listings) == sorted(
        path for path, command in commands().items() if any(each.name == "as_json" for each in command.params)
    )
