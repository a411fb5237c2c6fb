"""The command `entryfuzz`: its subcommands, and the one place where mistakes become one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from entryfuzz.commands.bench import bench
from entryfuzz.commands.case import case
from entryfuzz.commands.cluster import enqueue, scheduler, status, worker
from entryfuzz.commands.cores import cores
from entryfuzz.commands.corpus import corpus
from entryfuzz.commands.db import db
from entryfuzz.commands.divergences import divergences
from entryfuzz.commands.fuzz import fuzz
from entryfuzz.commands.mutants import mutants
from entryfuzz.commands.nightly import nightly
from entryfuzz.commands.sweep import sweep
from entryfuzz.commands.targets import targets
from entryfuzz.commands.vote import vote
from entryfuzz.errors import mistakes

EXIT_MISTAKE = 2


class Program(click.Group):
    """A group whose failures are one line for mistakes and a traceback for bugs."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command and leave with its exit code; without `standalone_mode`, return it."""
        code = self._run(args, prog_name, complete_var, extra)
        if standalone_mode:
            sys.exit(code)
        return code

    def _run(self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, extra: dict[str, Any]) -> int:
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "entryfuzz"
            return _refuse(f"{path}: {error.format_message()} See {path} --help.")
        except click.ClickException as error:
            return _refuse(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            return _refuse("entryfuzz: interrupted; what was stored stays")
        except Exception as error:
            if not isinstance(error, mistakes()):
                raise
            return _refuse(str(error))
        return code if isinstance(code, int) else 0


def _refuse(message: str) -> int:
    click.echo(" ".join(message.split()), err=True)
    return EXIT_MISTAKE


@click.group(cls=Program, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="entryfuzz")
def main() -> None:
    """Fuzz x86-64 kernel entry: emulator cores against a readable specification, divergences into a database."""
    from entryfuzz.added import register_added
    from entryfuzz.output import note

    for problem in register_added():
        note(problem)


for command in (
    fuzz, sweep, divergences, vote, case, corpus, cores, targets, mutants, bench, enqueue, worker, scheduler, status, nightly, db,
):  # fmt: skip
    main.add_command(command)
