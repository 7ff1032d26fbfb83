"""Fixtures of the interoperation tests. Whatever a test starts is stopped, and no honest peer may have noticed
anything: an exception or rejection in a reference client, or a datagram that it could not read, fails the test."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.interop import sut
from tests.interop.raw import RawPeer
from tests.interop.reference import Client, ReferenceProcess
from tests.interop.sut import Introducer, Settings

ERRORS_SHOWN = 5


class Net:
    """A /24 of loopback addresses of the test's own: every peer is a host, and two runs do not meet."""

    def __init__(self) -> None:
        draw = random.SystemRandom()
        self._prefix = f"127.{draw.randrange(16, 250)}.{draw.randrange(0, 256)}"
        self._next = 9

    def node(self, number: int) -> tuple[str, str]:
        """The two addresses of the node with this number (0 or 1)."""
        return (f"{self._prefix}.{2 + 2 * number}", f"{self._prefix}.{3 + 2 * number}")

    @property
    def pinger(self) -> str:
        return f"{self._prefix}.8"

    def host(self) -> str:
        """An address that nobody has yet."""
        self._next += 1
        return f"{self._prefix}.{self._next}"


@pytest.fixture
def net() -> Net:
    return Net()


StartNode = Callable[..., Introducer]


@pytest.fixture
def start_node(net: Net) -> Iterator[StartNode]:
    """Starts nodes, each one process with two identities: start_node(keep_alive_s=…, …), see Settings."""
    started: list[Introducer] = []

    def start(**settings: Any) -> Introducer:
        started.append(sut.start(net.node(len(started)), net.pinger, Settings(**settings)))
        return started[-1]

    yield start
    errors = []
    for node in started:
        try:
            node.close()
        except AssertionError as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture
def node(start_node: StartNode) -> Introducer:
    """A node with the default settings."""
    return start_node()


class Clients:
    """Makes reference clients, all in one process: clients(node, name=…, address=…, …), see Client."""

    def __init__(self, net: Net) -> None:
        self.process = ReferenceProcess()
        self.net = net
        self.forgiven: list[str] = []  # texts of the reference's own faults that a scenario cannot avoid
        self._count = 0

    def __call__(self, node: Introducer, **options: Any) -> Client:
        self._count += 1
        name = options.pop("name", f"client-{self._count}")
        address = options.pop("address", None) or self.net.host()
        return Client(self.process, name, address, node.entries, **options)


@pytest.fixture
def clients(net: Net, start_node: StartNode) -> Iterator[Clients]:
    made = Clients(net)
    try:
        yield made
        errors = [e for e in made.process.errors() if not any(text in e for text in made.forgiven)]
    finally:
        made.process.close()
    if errors:
        distinct = list(dict.fromkeys(errors))[:ERRORS_SHOWN]
        pytest.fail(f"reference clients noticed {len(errors)} things, among them:\n" + "\n".join(distinct))


NewRaw = Callable[..., RawPeer]


@pytest.fixture
def raw(net: Net, start_node: StartNode) -> Iterator[NewRaw]:
    """Makes raw peers, each on an address of its own."""
    made: list[RawPeer] = []

    def new(**options: Any) -> RawPeer:
        made.append(RawPeer(options.pop("address", None) or net.host(), **options))
        return made[-1]

    yield new
    for peer in made:
        peer.close()
