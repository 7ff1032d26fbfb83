"""Waiting in tests: generous deadlines, short naps, and a message that says what was still missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

DEADLINE_S: Final = float(
    os.environ.get("SRPNODE_DEADLINE_S", "60")
)  # for anything that must happen; a busy machine may take long, a broken one takes for ever
NAP_S: Final = 0.05

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, deadline_s: float = DEADLINE_S, nap_s: float = NAP_S) -> T:
    """Calls `probe` until it returns something true and returns that; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what} (last: {value!r})")
        time.sleep(nap_s)


def settled(probe: Callable[[], T], quiet_s: float, deadline_s: float = DEADLINE_S) -> T:
    """Waits until `probe` has returned the same value for `quiet_s` and returns it."""
    end = time.monotonic() + deadline_s
    value = probe()
    since = time.monotonic()
    while time.monotonic() - since < quiet_s:
        if time.monotonic() > end:
            raise AssertionError(f"still changing after {deadline_s:g} s: {value!r}")
        time.sleep(NAP_S)
        fresh = probe()
        if fresh != value:
            value, since = fresh, time.monotonic()
    return value
