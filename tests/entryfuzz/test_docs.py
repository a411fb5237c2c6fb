"""The documents keep up with the code: every command, every option, and every worked example."""

import re
from pathlib import Path

import click
import jsonschema
import pytest

from entryfuzz.cli import main
from fuzzer.build import build
from fuzzer.case_fields import read_object
from fuzzer.case_json import SCHEMA, parse
from fuzzer.observation_json import to_json
from fuzzer.targets.tables import REGIONS
from reference.run import run

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = (DOCS / "commands.md").read_text()
CASE_FORMAT = (DOCS / "case-format.md").read_text()
WORKED = re.findall(r"```json\n(.*?)```\n\nThe specification says: ([^\n]*)\.\n", CASE_FORMAT, re.DOTALL)


def leaves(group: click.Group, path: str) -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= leaves(command, f"{path} {name}")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            found[f"{path} {name}"] = command
    return found


SECTIONS = dict(re.findall(r"^## `(entryfuzz [a-z -]+[a-z])(?: [A-Z|]+)?`\n(.*?)(?=^## |\Z)", COMMANDS, re.DOTALL | re.MULTILINE))


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert set(SECTIONS) == set(leaves(main, "entryfuzz"))


@pytest.mark.parametrize(("path", "command"), leaves(main, "entryfuzz").items(), ids=leaves(main, "entryfuzz"))
def test_every_option_of_a_command_is_a_row_of_its_table(path: str, command: click.Command) -> None:
    documented = set(re.findall(r"^\| `(--[a-z-]+)", SECTIONS[path], re.MULTILINE))

    assert documented == {option for param in command.params if isinstance(param, click.Option) for option in param.opts}


def test_the_options_of_the_program_itself_are_named() -> None:
    for param in main.params:
        assert all(option in COMMANDS for option in param.opts)


def test_there_are_worked_examples() -> None:
    assert len(WORKED) >= 5
    assert CASE_FORMAT.count("```json") == len(WORKED)


@pytest.mark.parametrize(("text", "outcome"), WORKED, ids=[outcome for _, outcome in WORKED])
def test_a_worked_example_does_what_the_document_says(text: str, outcome: str) -> None:
    jsonschema.validate(read_object(text, "docs").value, SCHEMA)

    image = build(parse(text, "docs/case-format.md"))
    observed = to_json(run(image), image)

    assert f"{observed['end']}, {observed['fault'] or 'no exception'}" == outcome


def test_every_field_and_region_is_in_the_document() -> None:
    for name in [*SCHEMA["properties"], *REGIONS]:
        assert name == "$schema" or f"`{name}`" in CASE_FORMAT
