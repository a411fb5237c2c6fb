"""The JSON Schema of case files: what an editor needs to complete and check one; `case_json.parse` checks the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fuzzer.case import MAX_EVENTS
from fuzzer.case_tables import PAGE_BITS, SEGMENT_BITS, TSS_FIELDS
from fuzzer.legal import LAST_BOUNDARY, RULES
from fuzzer.targets.linux4.image import HANDLERS, MAX_CHANGES, PT_REGS
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.tables import REGIONS
from reference.image import EventKind
from reference.profiles import PROFILES

Schema = dict[str, Any]

_HEX_NUMBER: Final = "^(0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)$"


def _number(description: str, bits: int = 64) -> Schema:
    return {
        "description": description,
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": (1 << bits) - 1}, {"type": "string", "pattern": _HEX_NUMBER}],
    }


def _bytes(description: str) -> Schema:
    return {"description": description, "type": "string", "pattern": r"^\s*([0-9a-fA-F]{2}\s*)*$"}


def _flag(description: str) -> Schema:
    return {"description": description, "type": "boolean"}


def _object(description: str, members: Schema, required: tuple[str, ...] = ()) -> Schema:
    shape: Schema = {"description": description, "type": "object", "properties": members, "additionalProperties": False}
    return shape | ({"required": list(required)} if required else {})


def _table(description: str, key: str, value: Schema) -> Schema:
    return {"description": description, "type": "object", "propertyNames": {"pattern": key}, "additionalProperties": value}


def _names(description: str, names: Iterable[str]) -> Schema:
    return {"description": description, "enum": list(names)}


_FLAG_WORDS: Final = {
    "present": "P: the descriptor may be used.",
    "system": "A system descriptor (TSS, LDT): S is 0.",
    "granularity": "G: the limit counts pages.",
    "big": "D/B: 32-bit code, or a 32-bit stack.",
    "long": "L: 64-bit code.",
    "available": "AVL: free for software.",
}
_PAGE_WORDS: Final = {
    "present": "P: the page is mapped.",
    "writable": "R/W: writes are allowed.",
    "user": "U/S: user mode may use the page.",
    "accessed": "A: the page has been used.",
    "dirty": "D: the page has been written.",
    "no_execute": "XD: no instruction is fetched from the page.",
}
_AT: Final = "^([a-z_]+(\\+(0[xX][0-9a-fA-F_]+|[0-9][0-9_]*))?|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)$"

_SEGMENT: Final = _object(
    "One descriptor; what is not named stays as the target has it.",
    {
        "base": _number("The base: 32 bits, 64 in a system descriptor."),
        "limit": _number("The 20-bit limit, in bytes or, with granularity, in pages.", 20),
        "type": _number("The 4-bit type (SDM Vol. 3A, 3.4.5.1).", 4),
        "dpl": _number("The descriptor privilege level.", 2),
        **{name: _flag(_FLAG_WORDS[name]) for name in SEGMENT_BITS},
    },
)
_GATE: Final = _object(
    "One IDT gate; what is not named stays as the target has it.",
    {
        "offset": _number("The address of the handler."),
        "symbol": {"description": "The handler by its symbol (`entryfuzz targets show NAME`).", "type": "string"},
        "selector": _number("The code segment selector.", 16),
        "ist": _number("The interrupt stack table slot; 0 for none.", 3),
        "dpl": _number("The gate's privilege level: who may raise it by INT n.", 2),
        "type": _number("0xe for an interrupt gate, 0xf for a trap gate.", 4),
        "present": _flag("P: the gate may be used."),
    },
)
_DESCRIPTORS: Final = _object(
    "Variants of the tables of the machine.",
    {
        "gdt": _table("Descriptors of the GDT, by selector.", _HEX_NUMBER, _SEGMENT),
        "ldt": _table("Descriptors of the LDT, by selector (bit 2 set).", _HEX_NUMBER, _SEGMENT),
        "gates": _table("Gates of the IDT, by vector.", _HEX_NUMBER, _GATE),
        "tss": _object("Stack pointers of the TSS.", {name: _number(f"{name.upper()} of the TSS.") for name in TSS_FIELDS}),
        "pages": _table(
            "Rights of pages, by a linear address in the page.",
            _HEX_NUMBER,
            _object("The rights of one page.", {name: _flag(_PAGE_WORDS[name]) for name in PAGE_BITS}),
        ),
    },
)
_EVENT: Final = _object(
    "Something asynchronous that becomes pending.",
    {
        "boundary": _number(f"How many instructions have retired when it becomes pending: 0 (before the first) to {LAST_BOUNDARY}.", 10),
        "kind": _names("What arrives.", [kind.value for kind in EventKind]),
        "vector": _number("The vector of an interrupt, 32 to 255 without 0xf1.", 8),
    },
    ("boundary", "kind"),
)
_CHANGE: Final = _object(
    "One field of pt_regs that a handler writes, as ptrace and sigreturn do.",
    {
        "handler": _names("The C handler; all changes name the same one.", ["any", *HANDLERS]),
        "field": _names("The field of pt_regs.", PT_REGS),
        "value": _number("What is written."),
    },
    ("field", "value"),
)
_MEMORY: Final = {
    "description": f"Bytes in memory, by linear address or region+offset. Regions: {', '.join(REGIONS)}.",
    "oneOf": [
        _table("Each place once.", _AT, _bytes("Hex bytes.")),
        {
            "description": "In this order; a place may come again.",
            "type": "array",
            "items": _object(
                "One piece.",
                {"at": {"description": "The place.", "type": "string", "pattern": _AT}, "bytes": _bytes("Hex bytes.")},
                ("at", "bytes"),
            ),
        },
    ],
}

_PROPERTIES: Final[Schema] = {
    "$schema": {"description": "The schema's address, for editors; not read.", "type": "string"},
    "target": _names("The entry code under test; snippets if left out.", TARGETS),
    "scenario": {"description": "The named way into the target (`entryfuzz targets show NAME`).", "type": "string"},
    "profile": _names("The processor; intel if left out.", PROFILES),
    "registers": _object(
        "Registers before the first instruction; the others are as the scenario has them.",
        {name: _number(f"The register {name}.") for name in RULES},
    ),
    "code": {
        "description": "The instructions, as hex bytes from RIP, or as hex bytes by address.",
        "oneOf": [_bytes("Hex bytes from RIP."), _table("Hex bytes by address or region+offset.", _AT, _bytes("Hex bytes."))],
    },
    "end": _flag('Whether "int 0xf1", which ends the run, follows the code; true if left out.'),
    "memory": _MEMORY,
    "descriptors": _DESCRIPTORS,
    "events": {"description": "What arrives from outside.", "type": "array", "maxItems": MAX_EVENTS, "items": _EVENT},
    "changes": {
        "description": "What a handler of linux4 changes in the frame it returns to; the scenario's own changes stay.",
        "type": "array",
        "maxItems": MAX_CHANGES,
        "items": _CHANGE,
    },
    "note": {"description": "For people; not read.", "type": "string"},
}

FIELDS: Final = tuple(_PROPERTIES)
"""The fields of a case file, in the order in which they take effect."""

SCHEMA: Final[Schema] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "entryfuzz case",
    **_object("One case: a scenario, and what differs from it.", _PROPERTIES, ("scenario",)),
}
