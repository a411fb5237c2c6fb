"""Results that are finished while the database is away: kept in a folder, whole or not at all, and stored later."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import Engine

from db.work import StaleAttempt, finish_with
from db.work_records import Held, Measured
from workers.about import about_attempt
from workers.modes import RANDOM, UnknownMode, mode

log = logging.getLogger(__name__)
_DONE = ".json"


def keep(folder: Path, held: Held, result: Measured, mode_name: str = RANDOM) -> Path:
    """Write a result so that it survives the machine, under a name that says whose it is. OSError, as of a full disk, leaves nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"slice-{held.campaign_id}-{held.number}-{held.attempt}{_DONE}"
    # One writer for each name: another attempt has another number.
    half = final.with_suffix(".half")
    try:
        with open(half, "w", encoding="utf-8") as file:
            json.dump({"held": asdict(held), "mode": mode_name, "result": mode(mode_name).to_json(result)}, file)
            file.flush()
            os.fsync(file.fileno())
        half.replace(final)
        with _folder(folder) as place:
            os.fsync(place)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    return final


def store_kept(engine: Engine, folder: Path) -> int:
    """Store what is kept and take it out of the folder; return how many results were stored.

    A result that a later attempt has made worthless is deleted with a line in the log, and so is a file that nobody understands.
    DatabaseError: the database is still away, what was not stored is still kept.
    """
    stored = 0
    for file in sorted(folder.glob(f"slice-*{_DONE}")):
        try:
            held, name, result = _read(file)
            finish_with(engine, held, result, mode(name).put)
        except FileNotFoundError:
            continue  # Another worker with the same folder was faster.
        except StaleAttempt as refused:
            log.warning("%s: %s; deleted", file, refused)
        except (ValueError, KeyError, TypeError, UnknownMode) as error:
            log.error("%s: not a result of this program (%s: %s); deleted", file, type(error).__name__, error)
        else:
            stored += 1
            with about_attempt(held):
                log.info("%s: stored late", held)
        file.unlink(missing_ok=True)
    return stored


def _read(file: Path) -> tuple[Held, str, Measured]:
    value = json.loads(file.read_text(encoding="utf-8"))
    return Held(**value["held"]), value["mode"], mode(value["mode"]).from_json(value["result"])


@contextmanager
def _folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
