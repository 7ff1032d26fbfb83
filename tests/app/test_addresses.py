"""Addresses that change, and a 1:1 NAT, in network namespaces of the test's own. Needs root."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.app.node import DEADLINE_S, Node

MakeNode = Callable[[], Node]
NUMBERS = itertools.count()

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


class Net:
    """A few namespaces with links between them."""

    def __init__(self) -> None:
        self._prefix = f"srp{os.getpid()}-{next(NUMBERS)}"
        self.made: list[str] = []

    def add(self, name: str) -> str:
        """A namespace with loopback up; its full name."""
        full = f"{self._prefix}-{name}"
        run("ip", "netns", "add", full)
        self.made.append(full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        return full

    def link(self, one: str, one_address: str, other: str, other_address: str, name: str) -> None:
        """A link called `name` at both ends, with addresses like 10.0.0.1/24."""
        run("ip", "link", "add", name, "netns", one, "type", "veth", "peer", "name", name, "netns", other)
        for space, address in ((one, one_address), (other, other_address)):
            run("ip", "-n", space, "addr", "add", address, "dev", name)
            run("ip", "-n", space, "link", "set", name, "up")

    def close(self) -> None:
        for full in self.made:
            subprocess.run(["ip", "netns", "del", full], capture_output=True, timeout=60)


def run(*words: str, text: str | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, input=text)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture
def net(make_node: MakeNode) -> Iterator[Net]:  # after the nodes, so that they end first
    made = Net()
    yield made
    made.close()


def write(node: Node, *extra: str) -> None:
    """One identity on all addresses of its namespace."""
    a, _, probe, _, _ = node.ports
    node.file.write_text(
        "\n".join(
            [
                f'state_dir = "{node.directory}/state"',
                f'[metrics]\nlisten = ""\n[control]\nsocket = "{node.directory}/control.sock"',
                f"[[listen]]\nport = {a}\nprobe_port = {probe}",
                *extra,
            ]
        )
    )


def advertised(node: Node) -> str:
    return str(node.ask("info")[0]["address"])


def wait_advertised(node: Node, address: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while advertised(node) != address:
        assert time.monotonic() < deadline, (advertised(node), node.lines)
        time.sleep(0.1)


# Asks a node from one of our addresses; prints which address answers.
ASK = """
import socket, sys
from tests.net.echo import ping
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind((sys.argv[1], 0))
    s.settimeout(1)
    for number in range(30):
        s.sendto(ping(number), (sys.argv[2], int(sys.argv[3])))
        try:
            print(s.recvfrom(2048)[1][0])
            break
        except TimeoutError:
            pass
"""


def answers_from(space: str, source: str, node: Node, address: str) -> str:
    return run("ip", "netns", "exec", space, sys.executable, "-c", ASK, source, address, str(node.ports[0])).strip()


def test_answers_come_from_the_address_that_was_asked(net: Net, make_node: MakeNode) -> None:
    """Also when the way back would choose another; with one address the kernel is not asked for it, with two it is."""
    inside, router = net.add("in"), net.add("router")
    net.link(inside, "198.51.100.2/24", router, "198.51.100.1/24", "first")
    node = make_node()
    write(node)
    node.start(inside=inside)
    assert answers_from(router, "198.51.100.1", node, "198.51.100.2") == "198.51.100.2"
    net.link(inside, "203.0.113.2/24", router, "203.0.113.1/24", "second")
    run("ip", "-n", inside, "route", "add", "default", "via", "203.0.113.1")
    wait_advertised(node, "203.0.113.2")
    assert answers_from(router, "203.0.113.1", node, "198.51.100.2") == "198.51.100.2"
    assert answers_from(router, "198.51.100.1", node, "203.0.113.2") == "203.0.113.2"
    assert node.end() == 0


def test_follows_the_addresses_of_the_machine(net: Net, make_node: MakeNode) -> None:
    inside, router = net.add("in"), net.add("router")
    node = make_node()
    write(node)
    node.start(inside=inside)
    assert advertised(node) == "127.0.0.1"  # nothing else is there
    net.link(inside, "198.51.100.2/24", router, "198.51.100.1/24", "first")
    wait_advertised(node, "198.51.100.2")
    net.link(inside, "203.0.113.2/24", router, "203.0.113.1/24", "second")
    run("ip", "-n", inside, "route", "add", "default", "via", "203.0.113.1")
    wait_advertised(node, "203.0.113.2")  # the default route decides
    run("ip", "-n", inside, "route", "replace", "default", "via", "198.51.100.1")
    wait_advertised(node, "198.51.100.2")  # it moved
    run("ip", "-n", inside, "addr", "del", "198.51.100.2/24", "dev", "first")
    run("ip", "-n", inside, "addr", "add", "198.51.100.77/24", "dev", "first")
    run("ip", "-n", inside, "route", "replace", "default", "via", "198.51.100.1")
    wait_advertised(node, "198.51.100.77")  # the machine was renumbered
    run("ip", "-n", inside, "link", "set", "first", "down")
    wait_advertised(node, "203.0.113.2")  # its link went down
    assert node.end() == 0
    told = [line for line in node.lines if "advertised address is now" in line]
    assert len(told) >= 5
    assert any("198.51.100.2 gone" in line for line in node.lines)


ONE_TO_ONE = """
table ip nat {
  chain in { type nat hook prerouting priority dstnat; ip daddr 198.51.100.5 dnat to 10.9.0.2; }
  chain out { type nat hook postrouting priority srcnat; ip saddr 10.9.0.2 oifname "outside" snat to 198.51.100.5; }
}
"""


def test_finds_the_public_address_of_a_one_to_one_nat(net: Net, make_node: MakeNode) -> None:
    inside, router, outside = net.add("in"), net.add("router"), net.add("out")
    net.link(inside, "10.9.0.2/24", router, "10.9.0.1/24", "inside")
    net.link(router, "198.51.100.5/24", outside, "198.51.100.9/24", "outside")
    run("ip", "-n", inside, "route", "add", "default", "via", "10.9.0.1")
    run("ip", "netns", "exec", router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    run("ip", "netns", "exec", router, "nft", "-f", "-", text=ONE_TO_ONE)
    public = make_node()
    write(public)
    public.start(inside=outside)
    assert advertised(public) == "198.51.100.9"
    there = public.ask("info")[0]
    node = make_node()
    write(node, f'[[peer]]\naddress = "198.51.100.9"\nport = {there["port"]}\npeer_id = "{there["peerId"]}"')
    node.start(inside=inside)
    wait_advertised(node, "198.51.100.5")
    assert "10.9.0.2" in node.wait_for("advertised address is now 198.51.100.5")
    # And it is reachable there: the other one says so.
    done = subprocess.run(
        ["ip", "netns", "exec", outside, *node.command("ping", "--json", f"198.51.100.5:{node.ports[0]}")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)


LYING = """
table ip nat {
  chain in { type nat hook input priority 100; ip saddr 10.9.0.0/16 snat to 198.51.100.1; }
}
"""


def test_a_lying_peer_is_not_believed_over_others(net: Net, make_node: MakeNode) -> None:
    """Two peers that name different addresses of ours: none is taken, ours stays."""
    inside, one, other = net.add("in"), net.add("one"), net.add("two")
    net.link(inside, "10.9.0.2/24", one, "10.9.0.1/24", "one")
    net.link(inside, "10.9.1.2/24", other, "10.9.1.1/24", "two")
    run("ip", "-n", inside, "route", "add", "default", "via", "10.9.0.1")
    peers: list[str] = []
    for space, address, back in ((one, "10.9.0.1", "10.9.0.2"), (other, "10.9.1.1", "10.9.1.2")):
        run("ip", "-n", space, "route", "add", "default", "via", back)
        rules = LYING.replace("198.51.100.1", f"198.51.100.{len(peers) + 1}")
        run("ip", "netns", "exec", space, "nft", "-f", "-", text=rules)
        there = make_node()
        write(there)
        there.start(inside=space)
        entry = there.ask("info")[0]
        peers.append(f'[[peer]]\naddress = "{address}"\nport = {entry["port"]}\npeer_id = "{entry["peerId"]}"')
    node = make_node()
    write(node, *peers, "[log]\nlevel = 'debug'")
    node.start(inside=inside)
    deadline = time.monotonic() + DEADLINE_S
    while sorted(node.ask("status")["views"].values()) != ["198.51.100.1", "198.51.100.2"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert advertised(node) == "10.9.0.2"
