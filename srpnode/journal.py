"""What the node tells its operator: structured entries in the journal, readable lines on a terminal.

Every kind of event has a MESSAGE_ID of its own (journalctl MESSAGE_ID=…), so that a query survives a changed wording.
What a stranger can cause is limited: one line per kind and source in a window, the rest is counted ("suppressed N").
"""

import contextlib
import hashlib
import importlib
import os
import sys
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TextIO

WINDOW_S = 60.0
SOURCES_MAX = 1_024  # (kind, source) pairs remembered for suppression


class Level(IntEnum):
    """Severities, as syslog numbers them."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


LEVELS = {"error": Level.ERROR, "warning": Level.WARNING, "info": Level.INFO, "debug": Level.DEBUG}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of event. `limited` events are told once per source and window."""

    name: str
    message_id: str
    level: Level
    limited: bool = False


READY = Kind("ready", "5e52e283be7447ef82d9e633a2b4eb93", Level.NOTICE)
STOP = Kind("stop", "bc302ea0169349598f658bded9881f21", Level.NOTICE)
FAILED = Kind("failed", "88527e3f9d16446095cf6d043b65c5c0", Level.ERROR)
IDENTITY = Kind("identity", "8543f69e0c83496e9af6e25182fa3ac5", Level.INFO)
RELOADED = Kind("reloaded", "829a84883b6f4bf79504cc523fe1d196", Level.NOTICE)
REFUSED = Kind("reload-refused", "b47eb15fa186433da61dfb71b61ffe1e", Level.ERROR)
ADDRESS = Kind("address", "d6da7cb4642e4effa8dc373351511055", Level.WARNING)
STATE = Kind("state", "7433d8ece09b4c37bcc7ebc4041b1db5", Level.WARNING)
STUCK = Kind("stuck", "43652affa1484d3da855374229562fb5", Level.ERROR)
OVERRUN = Kind("overrun", "1b46c194672846cab54ea925c6924147", Level.WARNING, limited=True)
KERNEL = Kind("kernel", "d4fc82b6ff2543d696caafa37476886a", Level.WARNING)
CLAIM = Kind("claim", "bfac3c15b4774b208a1f04e1ea95ab1d", Level.WARNING, limited=True)
REFUSAL = Kind("refusal", "d1cb9ed190974366bfd19ee8c5b8f22b", Level.DEBUG, limited=True)
BLOCK = Kind("block", "29796c82c5104c7886f3b9ac1304200a", Level.NOTICE)
DROPS = Kind("drops", "69aa7b50aff54bc7a9a1cde3bb29f5bc", Level.INFO)
PEER = Kind("peer", "2cf7bf9a064f48f386f51a02fa5da739", Level.DEBUG, limited=True)
VOLUME = Kind("volume", "004b6f0c0002436da6921e817e2cecdf", Level.WARNING)


class Addresses:
    """Shows addresses of peers as log.addresses says: full, prefix (the /24), hash (keyed anew at each start), none."""

    def __init__(self, form: str) -> None:
        self.form = form
        self._key = os.urandom(16)

    def show(self, address: str, port: int = 0) -> str:
        """Text for one IPv4 address, with :port when it is shown in full."""
        if self.form == "full":
            return f"{address}:{port}" if port else address
        if self.form == "prefix":
            return address.rpartition(".")[0] + ".0/24"
        if self.form == "hash":
            return hashlib.blake2b(address.encode(), key=self._key, digest_size=4).hexdigest()
        return "-"


class Journal:
    """Tells events; the level and the form of addresses may change while it runs. For one thread."""

    def __init__(self, level: str = "info", addresses: str = "full", stream: TextIO | None = None) -> None:
        """Entries go to the journal when standard error leads there, else as lines to `stream` (standard error)."""
        self.level = LEVELS[level]
        self.addresses = Addresses(addresses)
        self._stream = stream or sys.stderr
        self.structured = stream is None and _stderr_is_journal()
        self._colour = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._windows: dict[tuple[str, str], list[float]] = {}  # (kind, source) -> [end of window, suppressed]

    def tell(
        self,
        kind: Kind,
        text: str,
        source: str = "",
        level: Level | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """One event. `source` is whom a limited kind is counted for, never shown. `fields` become SRPNODE_… fields of
        the entry; empty ones are left out."""
        severity = kind.level if level is None else level
        if severity > self.level:
            return
        if kind.limited:
            suppressed = self._suppressed(kind.name, source)
            if suppressed < 0:
                return
            if suppressed:
                text += f" (suppressed {suppressed})"
                fields = {**(fields or {}), "suppressed": suppressed}
        if self.structured:
            self._send(kind, severity, text, fields or {})
        else:
            self._line(kind, severity, text)

    def _suppressed(self, name: str, source: str) -> int:
        """How many were left out before this one; -1 when this one is left out too."""
        now = time.monotonic()
        window = self._windows.get((name, source))
        if window and now < window[0]:
            window[1] += 1
            return -1
        if window is None and len(self._windows) >= SOURCES_MAX:
            self._windows = {key: value for key, value in self._windows.items() if now < value[0]}
            if len(self._windows) >= SOURCES_MAX:  # a flood of sources shares one window
                return self._suppressed(name, "*") if source != "*" else -1
        self._windows[name, source] = [now + WINDOW_S, 0]
        return int(window[1]) if window else 0

    def _send(self, kind: Kind, severity: Level, text: str, fields: dict[str, Any]) -> None:
        journal: Any = importlib.import_module("systemd.journal")
        named = {f"SRPNODE_{name.upper()}": str(value) for name, value in fields.items() if value not in ("", None)}
        try:
            journal.send(
                text,
                MESSAGE_ID=kind.message_id,
                PRIORITY=str(int(severity)),
                SYSLOG_IDENTIFIER="srpnode",
                SRPNODE_EVENT=kind.name,
                **named,
            )
        except OSError:  # the journal is gone; the line at least
            self._line(kind, severity, text)

    def _line(self, kind: Kind, severity: Level, text: str) -> None:
        name = severity.name.lower()
        if self._colour:
            colour = {Level.ERROR: "31", Level.WARNING: "33", Level.NOTICE: "32"}.get(severity, "2")
            name = f"\x1b[{colour}m{name}\x1b[0m"
        with contextlib.suppress(OSError, ValueError):  # a closed terminal must not stop the node
            print(f"{time.strftime('%H:%M:%S')} {name} {kind.name}: {text}", file=self._stream, flush=True)


def _stderr_is_journal() -> bool:
    try:
        device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
        status = os.fstat(sys.stderr.fileno())
        return (int(device), int(inode)) == (status.st_dev, status.st_ino)
    except (OSError, ValueError, AttributeError):
        return False
