"""What a check of the specification against the host's processor found, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from entryfuzz.views.listings import counts, table


def report(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Numbers first, then each difference with its case, both sides beside each other."""
    rate = found["cases"] / found["seconds"] if found["seconds"] else 0
    yield Text(
        f"{found['processor']} (profile {found['profile']}), seed {found['seed']}: {found['cases']} cases, {found['compared']} compared, "
        f"{len(found['differences'])} differences, {found['not_repeatable']} not repeatable, {rate:.0f} cases/s"
    )
    if found["not_asked"]:
        yield counts("cases not asked", found["not_asked"])
    if found["tolerated"]:
        yield counts("tolerated", found["tolerated"])
    for each in found["differences"]:
        yield Text(f"\nspec {each['spec']}, silicon {each['silicon']}")
        sides = table("", "specification", "silicon")
        for field, values in each["fields"].items():
            sides.add_row(field, values["spec"], values["silicon"])
        yield sides
        yield Text(json.dumps(each["case"]))
