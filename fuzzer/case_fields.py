"""Reading the fields of a case file: each value with the path that names it, so that a mistake can be told in one line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

_DECIMAL: Final = re.compile(r"[0-9][0-9_]{0,99}")
_HEX: Final = re.compile(r"0[xX]_?[0-9a-fA-F][0-9a-fA-F_]{0,99}")
_CLOSE: Final = 0.6
_LONGEST_SHOWN: Final = 40


class CaseError(Exception):
    """A case file is wrong: one line with the file, the field and the way out."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a case file and the path to it."""

    origin: str
    path: str
    value: Any

    def refuse(self, what: str) -> NoReturn:
        """Raise the CaseError of this field."""
        where = f"{self.origin}: {self.path}" if self.path else self.origin
        raise CaseError(_one_line(f"{where}: {what}"))

    def shown(self) -> str:
        """The value as it stands in the file, cut where it is long."""
        text = json.dumps(self.value)
        return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"

    def member(self, name: str) -> Field:
        """The member `name` of this object; its value is None where it is missing."""
        return Field(self.origin, self._under(name), self.value.get(name))

    def members(self, known: Iterable[str] | None = None) -> Iterator[tuple[str, Field]]:
        """The members of an object, by name; with `known`, no other names."""
        if not isinstance(self.value, dict):
            self.refuse(f"{self.shown()} is not an object; write {{…}}")
        names = None if known is None else tuple(known)
        for name, value in self.value.items():
            field = Field(self.origin, self._under(name), value)
            if names is not None and name not in names:
                field.refuse(f"unknown field; {suggestion(name, names)}")
            yield name, field

    def items(self) -> Iterator[Field]:
        """The items of a list."""
        if not isinstance(self.value, list):
            self.refuse(f"{self.shown()} is not a list; write […]")
        for number, value in enumerate(self.value):
            yield Field(self.origin, f"{self.path}[{number}]", value)

    def number(self, bits: int = 64) -> int:
        """A number of at most `bits` bits, written as such or as a string."""
        value = self.value
        number = value if isinstance(value, int) and not isinstance(value, bool) else parse_number(value)
        if number is None:
            self.refuse(f'{self.shown()} is not a {bits}-bit {"hex " if isinstance(value, str) else ""}number; write 18 or "0x12"')
        if not 0 <= number < 1 << bits:
            self.refuse(f"{self.shown()} is not a {bits}-bit number; it must lie in 0 … {(1 << bits) - 1:#x}")
        return number

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse(f"{self.shown()} is neither true nor false")
        return self.value

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            self.refuse(f"{self.shown()} is not a string")
        return self.value

    def choice(self, names: Iterable[str], thing: str) -> str:
        """One of `names`."""
        known = tuple(names)
        value = self.text() if self.value is not None else ""
        if value not in known:
            what = f'there is no {thing} "{value}"' if value else f"missing; it names the {thing}"
            self.refuse(f"{what}; {suggestion(value, known)}")
        return value

    def data(self) -> bytes:
        """Bytes, as hex digits; spaces may stand between bytes."""
        text = self.text()
        try:
            return bytes.fromhex(text)
        except ValueError:
            self.refuse(f'{self.shown()} is not a row of hex bytes; write "0f 01 f8"')

    def _under(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def parse_number(text: object) -> int | None:
    """The number that a string spells in decimal or as 0x…, None if it spells none."""
    if not isinstance(text, str):
        return None
    if _HEX.fullmatch(text):
        return int(text.replace("_", ""), 16)
    return int(text.replace("_", "")) if _DECIMAL.fullmatch(text) else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """The way out of an unknown name: the near one, or all of them where they are few."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1, _CLOSE)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(names)}"


def read_object(text: str, origin: str) -> Field:
    """The JSON object that `text` is, no name in it given twice."""
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, origin))
    except json.JSONDecodeError as error:
        raise CaseError(f"{origin}: line {error.lineno}, column {error.colno}: {_lower(error.msg)}; a case file is JSON") from None
    except ValueError:
        raise CaseError(f"{origin}: a number has thousands of digits; a register has 64 bits") from None
    except RecursionError:
        raise CaseError(f"{origin}: nested too deeply; a case file has at most five levels") from None
    field = Field(origin, "", value)
    if not isinstance(value, dict):
        field.refuse(f"{field.shown()} is not an object; a case file begins with {{")
    return field


def _once(pairs: list[tuple[str, Any]], origin: str) -> Mapping[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise CaseError(_one_line(f'{origin}: "{name}" is given twice in one object; a list of {{"at", "bytes"}} may repeat a place'))
        result[name] = value
    return result


def _one_line(text: str) -> str:
    """Names in a file may hold anything, line ends too."""
    return " ".join(text.split())


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
