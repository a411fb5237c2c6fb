"""What the names in a manifest stand for: symbols of the code, stacks, places, numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from fuzzer.case_fields import Field, parse_number
from fuzzer.targets.own.program import Program
from reference.linux.entry_code import Stack


@dataclass(frozen=True, slots=True)
class Names:
    """The symbols of a program and the stacks of its manifest."""

    program: Program
    stacks: Mapping[str, Stack]

    def symbol(self, field: Field) -> int:
        """The address of the symbol that `field` names."""
        name = field.text()
        if name not in self.program.symbols:
            near = difflib.get_close_matches(name, self.program.symbols, 1)
            hint = f'did you mean "{near[0]}"?' if near else "nm lists those it has"
            field.refuse(f'{self.program.origin} has no symbol "{name}"; {hint}')
        return self.program.symbols[name]

    def place(self, field: Field) -> int:
        """The address that `symbol`, `symbol+0x10` or a number stands for."""
        if isinstance(field.value, int):
            return field.number()
        text = field.text()
        number = parse_number(text)
        if number is not None:
            return number
        name, plus, rest = text.partition("+")
        offset = parse_number(rest.strip()) if plus else 0
        if offset is None:
            field.refuse(f'"{rest}" is no offset; write "{name}+8" or "{name}+0x8"')
        return self.symbol(Field(field.origin, field.path, name.strip())) + offset

    def value(self, field: Field) -> int:
        """What is written to a word: the top of a stack by its name, or what a place stands for."""
        if isinstance(field.value, str) and field.value in self.stacks:
            return self.stacks[field.value].end
        return self.place(field)
