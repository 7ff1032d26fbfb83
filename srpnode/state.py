"""Small JSON files of the state directory: traffic of the month, blocks, known peers. Never a packet.

A file that cannot be read is put aside (FILE.corrupt-TIME) and told once: nothing in them is worth refusing to start.
"""

import contextlib
import json
import os
import time
from typing import Any

from srpnode import atomic, journal
from srpnode.journal import Journal

FILE_MAX = 4_000_000  # bytes
VERSION = 1


class StateFile:
    """One file of the state directory: {"version": 1, "kind": KIND, "data": …}."""

    def __init__(self, path: str, kind: str, tell: Journal) -> None:
        self.path = path
        self._kind = kind
        self._tell = tell
        self._written: bytes | None = None
        self._failed = False

    def read(self) -> Any:
        """What was written last; None when there is nothing usable."""
        try:
            with open(self.path, "rb") as file:
                content = json.loads(file.read(FILE_MAX))
            if content["version"] == VERSION and content["kind"] == self._kind:
                return content["data"]
            reason = "is of another version"
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell.tell(journal.STATE, f"{self.path}: cannot be read ({error.strerror}); started without it")
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            reason = "is corrupt"
        self.put_aside(reason)
        return None

    def put_aside(self, reason: str) -> None:
        """Renames an unusable file, so that the operator can look at it."""
        aside = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        with contextlib.suppress(OSError):
            os.replace(self.path, aside)
        self._tell.tell(journal.STATE, f"{self.path}: {reason}; put aside as {aside}, started without it")

    def write(self, data: Any) -> bool:
        """Replaces the file, whole or not at all; False when that failed, which is told once until it works again."""
        content = json.dumps({"version": VERSION, "kind": self._kind, "data": data}, separators=(",", ":")).encode()
        if content == self._written and not self._failed:
            return True
        try:
            atomic.write_over(self.path, content)
        except OSError as error:
            if not self._failed:
                self._tell.tell(
                    journal.STATE,
                    f"{self.path}: cannot be written ({error.strerror}); the old one stays; check space and owner",
                )
            self._failed = True
            return False
        self._failed = False
        self._written = content
        return True
