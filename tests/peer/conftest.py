"""Fixtures of the Python peer's tests: a node for each module, peers of both kinds on addresses of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pytest

from srpnode import Encryption, Network, network
from tests.interop import sut
from tests.interop.conftest import Clients, Net, NewRaw, StartNode, raw, start_node
from tests.interop.reference import Client
from tests.interop.sut import Introducer, Settings

__all__ = ["NewRaw", "StartNode", "raw", "start_node"]

DEADLINE_S = 60.0  # for anything that must happen; a busy machine may take long, a broken one takes for ever

P = ParamSpec("P")
T = TypeVar("T")


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a coroutine function as a test; nothing in it may take for ever."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(2 * DEADLINE_S):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


async def eventually(probe: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Waits until `probe` returns something true and returns that."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (value := probe()):
                await asyncio.sleep(0.02)
            return value
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s:g} s: {what} (last: {probe()!r})") from None


def aside(call: Callable[..., T], *args: Any, **kwargs: Any) -> Awaitable[T]:
    """A blocking call of the harness, in a thread: the peers here go on meanwhile."""
    return asyncio.to_thread(call, *args, **kwargs)


@pytest.fixture(scope="module")
def shared_net() -> Net:
    return Net()


@pytest.fixture
def net(shared_net: Net) -> Net:
    return shared_net


@pytest.fixture(scope="module")
def node(shared_net: Net) -> Iterator[Introducer]:
    """A node that the tests of a module share; each test has its own cluster."""
    started = sut.start(shared_net.node(0), shared_net.pinger, Settings(replicated_per_minute=1_000_000))
    yield started
    started.close()


class World:
    """A cluster of a test's own: `peer` makes Python peers, `reference` reference peers, all through one node."""

    def __init__(self, net: Net, node: Introducer, clients: Callable[[], Clients], stack: AsyncExitStack) -> None:
        self.net = net
        self.node = node
        self.cluster = f"cluster {os.urandom(8).hex()}"
        self._clients = clients
        self._stack = stack

    async def peer(self, **options: Any) -> Network:
        """A Python peer."""
        settings = {
            "cluster_id": Encryption.create_cluster_id(self.cluster),
            "peers": [entry.wire() for entry in self.node.entries],
            "address": self.net.host(),
            "publish_per_minute": 0,
            **options,
        }
        return await self._stack.enter_async_context(await network(**settings))

    async def reference(self, **options: Any) -> Client:
        """An unmodified reference peer."""
        return await aside(self._clients(), self.node, **{"cluster": self.cluster, **options})


@pytest.fixture(scope="module")
def reference_process(shared_net: Net) -> Iterator[Callable[[], Clients]]:
    """The process of the reference peers, when the first is wanted; no honest peer may have noticed anything."""
    made: list[Clients] = []

    def clients() -> Clients:
        if not made:
            made.append(Clients(shared_net))
        return made[0]

    try:
        yield clients
        errors = made[0].process.errors() if made else []
    finally:
        for each in made:
            each.process.close()
    assert not errors, "reference clients noticed:\n" + "\n".join(errors)


NewWorld = Callable[[AsyncExitStack], World]


@pytest.fixture
def new_world(net: Net, node: Introducer, reference_process: Callable[[], Clients]) -> NewWorld:
    return lambda stack: World(net, node, reference_process, stack)
