"""The network goes away under load and comes back: the same node serves again. Namespaces of its own, needs root."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.app.conftest import make_node  # noqa: F401, a fixture
from tests.app.node import Node
from tests.app.test_addresses import Net, run, wait_advertised, write

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

DEADLINE_S = 60.0
# Pings an address a thousand times a second, whatever the network says; writes down how many pongs came.
LOAD = """
import socket, sys, time
from tests.net.echo import ping
to = (sys.argv[1], int(sys.argv[2]))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
number, pongs, told, start = 0, 0, 0.0, time.monotonic()
while (now := time.monotonic()) < start + 120:
    while number < (now - start) * 1000:
        number += 1
        try:
            s.sendto(ping(number), to)
        except OSError:
            pass
    while True:
        try:
            pongs += s.recv(2048)[4] == 2
        except BlockingIOError:
            break
        except OSError:
            pass
    if now - told > 0.05:
        told = now
        print(pongs, flush=True)
    time.sleep(0.001)
"""


class Load:
    """That program in a namespace."""

    def __init__(self, space: str, address: str, port: int) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-c", LOAD, address, str(port)], stdout=subprocess.PIPE, text=True
        )
        self.pongs = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.pongs = int(line)

    def answered(self, more: int = 500) -> None:
        """Waits until it has got so many more pongs."""
        wanted = self.pongs + more
        until(lambda: self.pongs >= wanted, "nothing is answered")

    def silent(self) -> None:
        """Waits until it gets none for half a second."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            before = self.pongs
            time.sleep(0.5)
            if self.pongs == before:
                return
            assert time.monotonic() < deadline, "it still gets pongs"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def net(make_node: Callable[[], Node]) -> Iterator[Net]:  # noqa: F811
    made = Net()
    yield made
    made.close()


def test_interface_down_and_up_and_its_address_gone(net: Net, make_node: Callable[[], Node]) -> None:  # noqa: F811
    inside, outside = net.add("in"), net.add("out")
    net.link(inside, "198.51.100.2/24", outside, "198.51.100.1/24", "wire")
    run("ip", "-n", inside, "route", "add", "default", "via", "198.51.100.1")
    node = make_node()
    write(node)
    node.start(inside=inside)
    wait_advertised(node, "198.51.100.2")
    entries = node.ask("info")
    load = Load(outside, "198.51.100.2", node.ports[0])
    try:
        load.answered()
        for _ in range(2):
            run("ip", "-n", inside, "link", "set", "wire", "down")
            load.silent()
            run("ip", "-n", inside, "link", "set", "wire", "up")
            run("ip", "-n", inside, "route", "replace", "default", "via", "198.51.100.1")
            load.answered()
        run("ip", "-n", inside, "addr", "del", "198.51.100.2/24", "dev", "wire")
        load.silent()
        run("ip", "-n", inside, "addr", "add", "198.51.100.2/24", "dev", "wire")
        run("ip", "-n", inside, "route", "replace", "default", "via", "198.51.100.1")
        load.answered()
        wait_advertised(node, "198.51.100.2")
        assert node.ask("info") == entries
        udp = node.ask("status")["identities"][0]["udp"]
        assert udp["out_drop_other"] == 0, udp
    finally:
        load.close()
    assert node.end() == 0
