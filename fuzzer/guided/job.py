"""What the parent of a guided run tells its child, and what the child tells back. Imports nothing that the child has to instrument.

The child writes one JSON object a line into a pipe, as things come: `Told`. What an engine is running stands in shared memory
(`Current`), where it is still to be read when the engine has taken its process down.
"""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

LONGEST: Final = 4096
"""Bytes of a case that guided fuzzing makes."""
OURS_IS_WRONG: Final = 3
"""The exit code of a child after an error of our own."""
INPUTS, FOUND, LOG, CURRENT, JOB = "inputs", "found", "log", "current", "job.json"
"""Inside the folder of a run: what it begins with, what it found worth keeping, what libFuzzer says, the running case, and this job."""


@dataclass(frozen=True, slots=True)
class Job:
    """`executions` cases of a target; the first of them has the number `first`. `avoided` are cases (digests) no core survives."""

    folder: str
    target: str
    profiles: tuple[str, ...]
    cores: tuple[str, ...]
    seed: int
    first: int
    executions: int
    pipe: int
    parent: int
    instrumented: bool = True
    counted: bool = True
    """Whether the specification's events, and what a core does differently, guide."""
    avoided: tuple[str, ...] = ()

    def write(self) -> Path:
        """Store the job in its folder."""
        path = Path(self.folder) / JOB
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path


def read_job(path: str) -> Job:
    """The job of a file."""
    fields: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    for name, value in fields.items():
        fields[name] = tuple(value) if isinstance(value, list) else value
    return Job(**fields)


@dataclass(frozen=True, slots=True)
class Told:
    """What one execution, of this number, has to say: nothing at all for most."""

    number: int
    not_modelled: str = ""
    tolerated: tuple[str, ...] = ()
    core: int = 0
    """The place of the core that this is about."""
    divergent: str = ""
    """The bytes of the case, in hex, where the core differs."""

    def line(self) -> bytes:
        """As it goes through the pipe."""
        fields: dict[str, Any] = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(fields).encode() + b"\n"


def read_line(line: bytes) -> Told:
    """What a line of the pipe says."""
    fields = json.loads(line)
    return Told(**{"number": 0, **fields, "tolerated": tuple(fields.get("tolerated", ()))})


@dataclass(slots=True)
class Current:
    """The case that is being run: its number, the place of the core it is on, its bytes."""

    path: Path
    _memory: mmap.mmap = field(init=False)
    _FORM = struct.Struct("<qqI")

    def __post_init__(self) -> None:
        if not self.path.exists():
            self.path.write_bytes(bytes(self._FORM.size + LONGEST))
        with self.path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        if not any(self._memory):
            self.clear()

    def set(self, number: int, core: int, data: bytes) -> None:
        """Say what runs next; `core` is -1 for the specification."""
        self._memory[self._FORM.size : self._FORM.size + len(data)] = data
        self._FORM.pack_into(self._memory, 0, number, core, len(data))

    def clear(self) -> None:
        """Say that nothing runs."""
        self._FORM.pack_into(self._memory, 0, -1, -1, 0)

    def get(self) -> tuple[int, int, bytes]:
        """(number, core, bytes); the number is -1 where nothing runs."""
        number, core, length = self._FORM.unpack_from(self._memory, 0)
        return number, core, self._memory[self._FORM.size : self._FORM.size + length]
