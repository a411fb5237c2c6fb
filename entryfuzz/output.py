"""Where output goes: tables and JSON to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDE = 160
"""Columns where the output is no terminal, so that a pipe gets whole lines."""


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    click.echo(json.dumps(value, indent=2))


def print_view(*parts: RenderableType) -> None:
    """Renderables on stdout."""
    terminal = console(error=False)
    if terminal.is_terminal:
        for part in parts:
            terminal.print(part)
        return
    with terminal.capture() as captured:
        for part in parts:
            terminal.print(part)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def note(message: str) -> None:
    """One line for people, on stderr."""
    click.echo(message, err=True)


def console(error: bool) -> Console:
    """A console on stdout or stderr that takes text as it is: square brackets are memory operands here."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=None if stream.isatty() else WIDE)
