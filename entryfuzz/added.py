"""People's own targets on disk: a folder for each, with the manifest and the linked code, loaded whenever entryfuzz starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from entryfuzz.errors import Mistake

if TYPE_CHECKING:
    from fuzzer.targets.own.manifest import Manifest
    from fuzzer.targets.own.target import Own

FOLDER_VARIABLE: Final = "ENTRYFUZZ_TARGETS"
DEFAULT_FOLDER: Final = "entryfuzz-targets"
MANIFEST: Final = "manifest.toml"
CODE: Final = "code.elf"
CASES: Final = "cases"


def folder() -> Path:
    """Where added targets are kept."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


@dataclass(frozen=True, slots=True)
class Added:
    """A target of somebody's own, the manifest that made it, and where it is kept."""

    own: Own
    manifest: Manifest
    place: Path


def add(code: Path, manifest_file: Path, name: str | None) -> Added:
    """Make a target of code and manifest, keep it in its folder, and make it known to this process."""
    from fuzzer.targets.own.link import linked
    from fuzzer.targets.own.manifest import read_manifest
    from fuzzer.targets.own.program import read_program
    from fuzzer.targets.own.target import own_target
    from fuzzer.targets.registry import register

    text = _text(manifest_file)
    manifest = _named(read_manifest(text, str(manifest_file)), name)
    elf = linked(code, manifest)
    own = own_target(manifest, read_program(elf, str(code)))
    place = folder() / manifest.name
    _keep(place, text, elf)
    register(own.target)
    return Added(own, manifest, place)


def _named(manifest: Manifest, name: str | None) -> Manifest:
    from fuzzer.targets.own.manifest import is_name
    from fuzzer.targets.registry import clash

    if name is not None and not is_name(name):
        raise Mistake(f'--name: "{name}" is not a name; write small letters, digits and single dashes: my-kernel')
    result = replace(manifest, name=name or manifest.name)
    other = clash(result.name)
    if other is not None:
        raise Mistake(f'{manifest.origin}: name: "{result.name}" cannot stand beside the target {other}; take another, or give --name')
    return result


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{file}: not text; a manifest is TOML in UTF-8") from None


def _keep(place: Path, manifest: str, elf: bytes) -> None:
    """Replace what is kept under this name; the cases of what was there before would run on other code."""
    try:
        (place / CASES).mkdir(parents=True, exist_ok=True)
        for old in (place / CASES).glob("*.json"):
            old.unlink()
        (place / MANIFEST).write_text(manifest, encoding="utf-8")
        (place / CODE).write_bytes(elf)
    except OSError as error:
        raise Mistake(f"{place}: cannot be written: {error.strerror}; name another folder in {FOLDER_VARIABLE}") from None


def register_added() -> Iterator[str]:
    """Make every target that is kept known to this process, by name; yields a line for each that cannot be."""
    if not folder().is_dir():
        return
    for place in sorted(path.parent for path in folder().glob(f"*/{MANIFEST}")):
        problem = _register(place)
        if problem:
            yield f"{problem}; the target {place.name} is left out: add it again, or remove {place}"


def _register(place: Path) -> str | None:
    """What is wrong with the target in a folder; nothing if it is known now."""
    from fuzzer.case_fields import CaseError
    from fuzzer.targets.own.manifest import read_manifest
    from fuzzer.targets.own.program import read_program
    from fuzzer.targets.own.target import own_target
    from fuzzer.targets.registry import register

    try:
        manifest = _named(read_manifest(_text(place / MANIFEST), str(place / MANIFEST)), place.name)
        own = own_target(manifest, read_program((place / CODE).read_bytes(), str(place / CODE)))
    except (CaseError, Mistake) as error:
        return str(error)
    except OSError as error:
        return f"{place / CODE}: cannot be read: {error.strerror}"
    register(own.target)
    return None
