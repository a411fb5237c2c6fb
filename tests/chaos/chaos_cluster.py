"""The cluster of the fault test: the program's own processes and two real servers, started again when they end, as compose would."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from chaos_core import ACCOUNT
from servers import Server, postgres_server, redis_server
from sqlalchemy import Engine

from db.engine import open_database
from db.errors import DatabaseError
from db.work import planned
from db.work_records import PlannedRow

LEASE = 20.0
"""Seconds: short, so that what was lost comes back while somebody waits; long enough for a hang, which lasts 20, to be told from it."""
SPOOL_BYTES = 16 << 20
WORKERS = ("worker-1", "worker-2")


@dataclass
class Service:
    """A process of the program that is meant to run all the time."""

    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]
    ended: list[int] = field(default_factory=list)
    """The exit codes with which it ended by itself."""


class Cluster:
    """A scheduler and two workers, a Redis and a PostgreSQL."""

    def __init__(self, folder: Path, environment: dict[str, str], postgres: Server, redis: Server) -> None:
        self.folder, self.postgres, self.redis = folder, postgres, redis
        self.spool, self.account = folder / "spool", Path(environment[ACCOUNT])
        self.engine: Engine = open_database(postgres.url)
        servers = {"ENTRYFUZZ_DB": postgres.url, "ENTRYFUZZ_REDIS": redis.url, "ENTRYFUZZ_SPOOL": str(self.spool)}
        self._environment = os.environ | environment | servers
        self.services: dict[str, Service] = {}

    def ask(self, *arguments: str) -> str:
        """Run a command to its end, and return what it printed."""
        command = [sys.executable, "-m", "entryfuzz", *arguments]
        return subprocess.run(command, env=self._environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    def start(self) -> None:
        """Start everything but the servers."""
        self._start("scheduler", "scheduler")
        for name in WORKERS:
            self._start(name, "worker", "--name", name, "--lease", str(LEASE))

    def _start(self, name: str, *arguments: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "entryfuzz", *arguments], env=self._environment, stdout=log, stderr=log)
        if name in self.services:
            self.services[name].process = process
        else:
            self.services[name] = Service(name, arguments, process)

    def kill(self, name: str) -> None:
        """SIGKILL to one process, and to none below it; it is started again at once."""
        service = self.services[name]
        service.process.kill()
        service.process.wait()
        self._start(name, *service.arguments)

    def revive(self) -> None:
        """Start again what has ended by itself, which nothing should."""
        for service in self.services.values():
            code = service.process.poll()
            if code is not None:
                service.ended.append(code)
                self._start(service.name, *service.arguments)

    def horse(self, name: str) -> psutil.Process | None:
        """The process of a worker's job."""
        children = _children(self.services[name].process.pid, recursive=False)
        return children[0] if children else None

    def engine_of(self, name: str) -> psutil.Process | None:
        """The process in which the engine of a worker's job runs."""
        return next((each for each in _children(self.services[name].process.pid, recursive=True) if _is_engine(each)), None)

    def planned(self) -> list[PlannedRow]:
        """The planned slices; none while the database is away."""
        try:
            return planned(self.engine)
        except DatabaseError:
            return []

    def log(self) -> str:
        """What all of them have said so far."""
        return "\n".join(file.read_text(errors="replace") for file in sorted(self.folder.glob("*.log")))

    def end(self) -> dict[str, int]:
        """Ask everything to stop, and return the exit codes."""
        for service in self.services.values():
            service.process.send_signal(signal.SIGTERM)
        codes = {}
        for service in self.services.values():
            try:
                codes[service.name] = service.process.wait(60)
            except subprocess.TimeoutExpired:
                service.process.kill()
                codes[service.name] = service.process.wait()
        self.engine.dispose()
        return codes


def _children(pid: int, *, recursive: bool) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive)
    except psutil.NoSuchProcess:
        return []


def _is_engine(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@contextmanager
def cluster(folder: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    """A cluster whose servers run; nothing of it is left afterwards but its folder."""
    postgres, redis = postgres_server(), redis_server()
    with _spool(folder / "spool"):
        for server in (postgres, redis):
            server.start()
        made = Cluster(folder, environment, postgres, redis)
        try:
            yield made
        finally:
            made.end()
            for server in (postgres, redis):
                server.stop()
                shutil.rmtree(server.folder, ignore_errors=True)


@contextmanager
def _spool(folder: Path) -> Iterator[None]:
    """The spool folder; a small file system of its own if this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SPOOL_BYTES}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """Nothing can be written into the folder meanwhile: its disk is full, or, where that is not to be had, it is no folder."""
    if not os.path.ismount(folder):
        aside = folder.rename(folder.with_suffix(".aside"))
        folder.touch()
        yield
        folder.unlink()
        aside.rename(folder)
        return
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as full:
            if full.errno != errno.ENOSPC:
                raise
    yield
    filler.unlink()


def new_folder() -> Path:
    """An empty folder for a run."""
    return Path(tempfile.mkdtemp(prefix="entryfuzz-chaos-"))


def wait_until(happened: Callable[[], bool], seconds: float) -> bool:
    """Whether `happened` came true within the time."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
