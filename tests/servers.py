"""Servers for tests, each a process of its own with its data in a temporary folder: started, stopped, killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

START_SECONDS = 30
HOST = "127.0.0.1"


@dataclass
class Server:
    """A server program on a free port; `url` says how to reach it."""

    command: Sequence[str]
    port: int
    url: str
    folder: Path
    ready: Callable[[], bool]
    user: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log, user=self.user)
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command[0]} does not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=START_SECONDS)
            self.process = None


def redis_server() -> Server:
    """A Redis that keeps nothing; skips the test without the program."""
    program = _program("redis-server", [], "redis-server")
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="entryfuzz-redis-"))
    command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    return Server(command, port, f"redis://{HOST}:{port}/0", folder, lambda: _answers(port))


def postgres_server() -> Server:
    """An empty PostgreSQL, as a user without privileges, which it insists on; skips the test without the programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb, postgres = (_program(name, found, "postgresql") for name in ("initdb", "postgres"))
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="entryfuzz-postgres-"))
    user = _unprivileged() if os.geteuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    data = folder / "data"
    make = [initdb, "--pgdata", str(data), "--username", "entryfuzz", "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C"]
    subprocess.run(make, cwd=folder, user=user, check=True, capture_output=True)
    settings = [f"listen_addresses={HOST}", f"unix_socket_directories={folder}", "fsync=off", "shared_buffers=16MB", "timezone=Asia/Tokyo"]
    command = [postgres, "-D", str(data), "-p", str(port), *(part for setting in settings for part in ("-c", setting))]
    url = f"postgresql://entryfuzz@{HOST}:{port}/postgres"
    return Server(command, port, url, folder, lambda: _accepts(url), user)


def _program(name: str, folders: Sequence[Path], package: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(str(folder) for folder in folders))
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed; apt-get install {package}")
    if path is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")
    return path


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        return int(listening.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as talking:
        talking.settimeout(1)
        if talking.connect_ex((HOST, port)) != 0:
            return False
        talking.sendall(b"PING\r\n")
        return talking.recv(16).startswith(b"+PONG")


def _accepts(url: str) -> bool:
    from sqlalchemy import create_engine, exc, pool

    engine = create_engine(url, poolclass=pool.NullPool)
    try:
        engine.connect().close()
    except exc.OperationalError:
        return False
    return True
