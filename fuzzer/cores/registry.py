"""The cores there are, this project's and those that other packages bring: loaded when asked for, so that listing them needs no engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Final

from fuzzer.cores.bochs import probe as bochs
from fuzzer.cores.core import Core, CoreError
from fuzzer.cores.qemu import probe as qemu
from fuzzer.cores.silicon import probe as silicon

GROUP: Final = "entryfuzz.cores"
"""The entry-point group in which another package names its core: a class, or anything that makes a `Core` when called."""

Probe = Callable[[], tuple[str | None, str]]
"""(version of the engine, empty string), or (None, what is missing and how to get it)."""


@dataclass(frozen=True, slots=True)
class CoreInfo:
    """A core by name: the package that brings its engine, how to make one, and how to find out whether it can be made."""

    name: str
    package: str
    load: Callable[[], Core]
    probe: Probe | None = None
    """Asks for an engine that is not a Python package; without it the version is the package's."""
    descent: str = ""
    """The engine that this one was made from, if its agreement with that one proves little."""

    def available(self) -> tuple[str | None, str]:
        """(version of the engine, empty string), or (None, what is missing and how to get it)."""
        if self.probe is not None:
            return self.probe()
        try:
            return metadata.version(self.package), ""
        except metadata.PackageNotFoundError:
            return None, f"the package {self.package} is not installed; run: pip install {self.package}"

    @property
    def family(self) -> str:
        """Equal for engines that share their origin."""
        return self.descent or self.name


def _unicorn() -> Core:
    from fuzzer.cores.unicorn.core import UnicornCore

    return UnicornCore()


def _qemu() -> Core:
    from fuzzer.cores.qemu.core import QemuCore

    return QemuCore()


def _bochs() -> Core:
    from fuzzer.cores.bochs.core import BochsCore

    return BochsCore()


def _silicon() -> Core:
    from fuzzer.cores.silicon.core import SiliconCore

    return SiliconCore()


_OWN: Final = (
    CoreInfo("unicorn", "unicorn", _unicorn, descent="qemu"),
    CoreInfo("qemu", qemu.PACKAGE, _qemu, qemu.available),
    CoreInfo("bochs", bochs.PACKAGE, _bochs, bochs.available),
    CoreInfo("silicon", "(the host's processor)", _silicon, silicon.available),
)


def _from_outside(entry: metadata.EntryPoint) -> CoreInfo:
    """The core that an installed package names."""
    return CoreInfo(entry.name, entry.dist.name if entry.dist else entry.value, partial(_made, entry.name, entry.value))


def _made(name: str, value: str) -> Core:
    try:
        core: Core = metadata.EntryPoint(name, value, GROUP).load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise CoreError(f"core {name}: {value} cannot be loaded: {error}") from None
    return core


CORES: Final = {info.name: info for info in (*map(_from_outside, metadata.entry_points(group=GROUP)), *_OWN)}
"""By name, this project's own last: nobody's core takes the place of one of them."""


def load(name: str) -> Core:
    """Make the core of that name; CoreError where its engine is missing or refuses to work."""
    return CORES[name].load()
