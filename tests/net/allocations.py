"""Counts the loop's allocations under load, with tests/net/count_malloc.c preloaded; prints them as JSON.

The thread that asks is the process's first one, so all that the library counts is the loop's.
"""

from __future__ import annotations

import ctypes
import json

from tests.net.echo import Client, running


def main() -> None:
    so_far = ctypes.CDLL(None).count_malloc_so_far
    so_far.restype = ctypes.c_ulong
    before = so_far()
    with running("0.0.0.0") as at, Client(at.to) as client:
        client.ask(range(100))
        at.loop.open_pool()
        at.loop.close_pool()
        started = so_far()
        client.ask(range(1000, 6000))
        for _ in range(20):
            at.loop.beat(30)
        ended = so_far()
        datagrams = at.count("in_datagrams") + at.count("out_datagrams")
    print(json.dumps({"starting": started - before, "running": ended - started, "datagrams": datagrams}))


main()
