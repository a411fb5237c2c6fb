"""The cores there are: loaded when asked for, so that listing them needs no engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from fuzzer.cores.core import Core


@dataclass(frozen=True, slots=True)
class CoreInfo:
    """A core by name: the package that brings its engine, and how to make one."""

    name: str
    package: str
    load: Callable[[], Core]

    def available(self) -> tuple[str | None, str]:
        """(version of the engine, empty string), or (None, what is missing and how to get it)."""
        try:
            return metadata.version(self.package), ""
        except metadata.PackageNotFoundError:
            return None, f"the package {self.package} is not installed; run: pip install {self.package}"


def _unicorn() -> Core:
    from fuzzer.cores.unicorn.core import UnicornCore

    return UnicornCore()


CORES: Final = {info.name: info for info in (CoreInfo("unicorn", "unicorn", _unicorn),)}
