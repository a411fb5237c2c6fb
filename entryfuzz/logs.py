"""The log of processes that run for long: lines for people, or JSON for programs, on stderr."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

FORMATS = ("text", "json")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: `time`, `level`, `event`, what it is about, and the traceback of a bug."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        from workers.about import fields

        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(log_format: str) -> None:
    """Log to stderr from now on, in one of the formats."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
