"""Options that several commands share, and names that are checked only when a command runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

DEFAULT_DATABASE = "entryfuzz.db"
DEFAULT_CORE = "unicorn"
DEFAULT_CONFIG = "entryfuzz.toml"

database_option = click.option(
    "--db",
    "database",
    metavar="URL",
    default=DEFAULT_DATABASE,
    envvar="ENTRYFUZZ_DB",
    show_default=True,
    show_envvar=True,
    help="The database of results: the name of an SQLite file, or an SQLAlchemy URL.",
)
redis_option = click.option(
    "--redis",
    metavar="URL",
    default="redis://localhost:6379/0",
    envvar="ENTRYFUZZ_REDIS",
    show_default=True,
    show_envvar=True,
    help="The queue of slices, in a Redis. It may be emptied at any time.",
)
config_option = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_CONFIG,
    envvar="ENTRYFUZZ_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The timetable.",
)
_WATCHED = (
    click.option(
        "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Lines for people, or for programs."
    ),
    click.option("--metrics-port", type=click.IntRange(1, 65535), metavar="N", help="Serve metrics for Prometheus here."),
    click.option("--metrics-host", default="127.0.0.1", show_default=True, metavar="HOST", help="The address to serve them at."),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")


def watched_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how a process that runs for long is watched."""
    return _with(_WATCHED, command)


def _with(options: Iterable[Callable[..., Any]], command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


class Name(click.ParamType[str]):
    """One of the names that `known` gives when it is asked: nothing is imported before a command runs."""

    def __init__(self, thing: str, known: Callable[[], Iterable[str]]) -> None:
        self.name = thing
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, or a usage error that says which names there are."""
        names = list(self._known())
        if value in names:
            return str(value)
        raise click.UsageError(f'there is no {self.name} "{value}"; known: {", ".join(names)}.', ctx)


def _targets() -> Iterable[str]:
    from fuzzer.targets.registry import TARGETS

    return TARGETS


def _profiles() -> Iterable[str]:
    from reference.profiles import PROFILES

    return PROFILES


def _cores() -> Iterable[str]:
    from fuzzer.cores.registry import CORES

    return CORES


def _areas() -> Iterable[str]:
    from fuzzer.signature import AREAS

    return AREAS


def _kinds() -> Iterable[str]:
    from db.records import KINDS

    return KINDS


def _verdicts() -> Iterable[str]:
    from fuzzer.verdict import Verdict

    return [each.value for each in Verdict]


def _modes() -> Iterable[str]:
    from workers.local import MODES

    return MODES


TARGET = Name("target", _targets)
PROFILE = Name("profile", _profiles)
CORE = Name("core", _cores)
MODE = Name("mode", _modes)
AREA = Name("area", _areas)
KIND = Name("kind", _kinds)
VERDICT = Name("verdict", _verdicts)

mode_option = click.option(
    "--mode",
    type=MODE,
    default="random",
    show_default=True,
    help="random: every case from the seed alone. guided: cases that reach something new are kept and changed further.",
)
_CAMPAIGN = (
    click.option(
        "--target", "targets", type=TARGET, multiple=True, metavar="TARGET", help="A target to fuzz; may be given again. All if left out."
    ),
    click.option(
        "--core",
        "cores",
        type=CORE,
        multiple=True,
        metavar="CORE",
        help="A core to compare with the specification; may be given again: all run the same cases. unicorn if left out.",
    ),
    click.option(
        "--profile", "profiles", type=PROFILE, multiple=True, metavar="PROFILE", help="A CPU profile; may be given again. All if left out."
    ),
    click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The same seed gives the same cases. Random if left out, and shown."),
)
_SEED_BITS = 32


def campaign_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a campaign is about; `campaign_fields` fills in what is left out."""
    return _with(_CAMPAIGN, command)


def campaign_fields(targets: tuple[str, ...], cores: tuple[str, ...], profiles: tuple[str, ...], seed: int | None) -> dict[str, Any]:
    """What a campaign is about: `targets`, `cores`, `profiles` and `seed`, none of them empty; a usage error for a target of one's own."""
    from fuzzer.generate.generator import GENERATORS
    from reference.profiles import PROFILES

    for own in (name for name in targets if name not in GENERATORS):
        raise click.UsageError(f"no generator makes cases for {own}; targets add tries all of its paths.", click.get_current_context())
    return {
        "targets": tuple(dict.fromkeys(targets)) or tuple(GENERATORS),
        "cores": tuple(dict.fromkeys(cores)) or (DEFAULT_CORE,),
        "profiles": tuple(dict.fromkeys(profiles)) or tuple(PROFILES),
        "seed": secrets.randbits(_SEED_BITS) if seed is None else seed,
    }
