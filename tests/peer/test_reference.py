"""The Python peer with unmodified reference peers, through one node: each opens what the other seals."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any

import pytest

from srpnode import Encryption, Network, Peer, Subcluster
from srpnode.crypto import Sealer
from tests.interop.reference import Client
from tests.peer.conftest import DEADLINE_S, NewWorld, World, aside, asynchronous, eventually

SUBCLUSTER = "subcluster"
EVENT = "news"
SIZES = (20, 10_000, 200_000)


async def ours(world: World, **options: Any) -> tuple[Network, Subcluster]:
    net = await world.peer(**options)
    sub = await net.subcluster(Encryption.create_shared_key(SUBCLUSTER))
    await net.ready(DEADLINE_S)
    return net, sub


async def theirs(world: World, **options: object) -> Client:
    client = await world.reference(**options)
    await aside(client.ready)
    await aside(client.join, SUBCLUSTER)
    await aside(client.listen, SUBCLUSTER, EVENT)
    return client


async def both_met(net: Network, sub: Subcluster, client: Client) -> Peer:
    """Waits for #join on both sides."""
    peer = await eventually(lambda: sub.peers.get(client.peer_id), "#join here")
    await aside(client.wait, "join", lambda e: e["peerId"] == net.peer_id)
    return peer


async def publish_both_ways(sub: Subcluster, client: Client) -> None:
    """Events of all sizes arrive, opened and verified."""
    for size in SIZES:
        data = os.urandom(size)
        await sub.emit(EVENT, data)
        await aside(client.wait_message, data)
        data = os.urandom(size)
        arriving = sub.events(EVENT)
        await aside(client.emit, SUBCLUSTER, EVENT, data)
        message = await anext(arriving)
        assert message == data
        assert message.verified


@asynchronous
@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_join_events_and_streams_both_ways(new_world: NewWorld, first: str) -> None:
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        if first == "ours":
            net, sub = await ours(world)
            client = await theirs(world)
        else:
            client = await theirs(world)
            net, sub = await ours(world)
        assert net.info is not None
        assert net.info.nat_type == 31
        peer = await both_met(net, sub, client)
        assert peer.direct
        await publish_both_ways(sub, client)
        for size in (20, 10_000):
            data = os.urandom(size)
            await peer.emit(EVENT, data)
            await aside(client.wait_message, data)
            data = os.urandom(size)
            streamed = peer.events(EVENT)
            await aside(client.stream, SUBCLUSTER, EVENT, data, to=net)
            message = await anext(streamed)
            assert message == data
            assert message.peer_id == client.peer_id
            assert message.source == (client.address, client.port)
        await aside(client.close)


@asynchronous
async def test_through_the_node_only(new_world: NewWorld) -> None:
    """Without a path to each other both meet by proxy, and events and streams go through the node."""
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        host = world.net.host()
        client = await theirs(world, blocked=[host])
        net = await world.peer(address=host)
        sub = await net.subcluster(Encryption.create_shared_key(SUBCLUSTER))
        peer = await eventually(lambda: sub.peers.get(client.peer_id), "#join here")
        await publish_both_ways(sub, client)
        assert not peer.direct
        nodes = {(entry.address, entry.port) for entry in world.node.entries}
        data = os.urandom(5_000)
        await peer.emit(EVENT, data)
        await aside(client.wait_message, data)
        await aside(client.wait, "join", lambda e: e["peerId"] == net.peer_id)
        data = os.urandom(5_000)
        arriving = sub.events(EVENT)
        await aside(client.stream, SUBCLUSTER, EVENT, data, to=net)
        message = await anext(arriving)
        assert message == data
        assert message.source in nodes
        await aside(client.close)


@asynchronous
async def test_leave_on_both_sides(new_world: NewWorld) -> None:
    """Who is gone is noticed after four keep-alives, by us and by the reference."""
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        net = await world.peer(keep_alive_s=0.25)
        sub = await net.subcluster(Encryption.create_shared_key(SUBCLUSTER))
        left = sub.events("#leave")
        client = await theirs(world, keep_alive_ms=500)
        await both_met(net, sub, client)
        await aside(client.close)
        async with asyncio.timeout(DEADLINE_S):
            assert (await anext(left)).peer_id == client.peer_id
        assert client.peer_id not in sub.peers
        other = await theirs(world, keep_alive_ms=500)
        await both_met(net, sub, other)
        await net.close()
        await aside(other.wait, "disconnection", lambda e: e["peerId"] == net.peer_id)
        await aside(other.close)


@asynchronous
async def test_a_peer_that_lies_about_its_address_harms_nobody(new_world: NewWorld) -> None:
    """Its join claims another's address; it is met where it really is, and its victim is not bothered."""
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        liar = await world.reference(nat="none")
        (net, sub), victim, _ = await asyncio.gather(ours(world), theirs(world), aside(liar.ready))
        await both_met(net, sub, victim)
        attempts = net.counters()["attempts"]
        await aside(liar.process.request, "lie", client=liar.name, address=victim.address, port=victim.port)
        await aside(liar.join, SUBCLUSTER)
        peer = await eventually(lambda: sub.peers.get(liar.peer_id), "#join of the liar")
        assert (peer.address, peer.port) == (liar.address, liar.port)
        assert sub.peers[victim.peer_id].address == victim.address
        assert net.counters()["attempts"] <= attempts + 1
        data = os.urandom(1000)
        arriving = sub.events(EVENT)
        await aside(victim.emit, SUBCLUSTER, EVENT, data)
        assert await anext(arriving) == data
        for client in (victim, liar):
            await aside(client.close)


NEVER_MS = 3_600_000  # a keep-alive: nothing that is repeated with it helps here


@asynchronous
async def test_a_subcluster_joined_later_is_heard_of_between_reference_peers(new_world: NewWorld) -> None:
    """They met in another one, take no further introduction, and join again in a keep-alive only."""
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        a, b = await asyncio.gather(*(theirs(world, keep_alive_ms=NEVER_MS) for _ in range(2)))
        await asyncio.gather(aside(a.wait_join, b), aside(b.wait_join, a))
        seen = len(b.events("seen-join"))
        await aside(a.join, "later")
        await eventually(lambda: len(b.events("seen-join")) > seen, "a's join at b, who does not know the subcluster yet")
        await aside(b.join, "later")
        for client, other in ((a, b), (b, a)):
            await aside(client.wait, "join", lambda e, o=other: e["peerId"] == o.peer_id and e["subcluster"] == "later")
        for client in (a, b):
            await aside(client.close)


@asynchronous
@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_a_subcluster_joined_later_is_heard_of_on_both_sides(new_world: NewWorld, first: str) -> None:
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        (net, sub), client = await asyncio.gather(
            ours(world, keep_alive_s=NEVER_MS / 1000), theirs(world, keep_alive_ms=NEVER_MS)
        )
        await both_met(net, sub, client)
        if first == "theirs":
            await aside(client.join, "later")
        later = await net.subcluster(Encryption.create_shared_key("later"))
        if first == "ours":
            await aside(client.join, "later")
        await eventually(lambda: client.peer_id in later.peers, "#join here")
        await aside(client.wait, "join", lambda e: e["peerId"] == net.peer_id and e["subcluster"] == "later")
        await aside(client.close)


@asynchronous
async def test_sealed_by_the_one_opens_at_the_other(new_world: NewWorld) -> None:
    async with AsyncExitStack() as stack:
        client = await new_world(stack).reference()
        sealer = Sealer(Encryption.create_key_pair(Encryption.create_shared_key(SUBCLUSTER)))
        for size in (1, 64, 1000, 100_000):
            data = os.urandom(size)
            answer = await aside(client.process.request, "open", subcluster=SUBCLUSTER, data=sealer.seal(data).hex())
            assert bytes.fromhex(answer["data"]) == data
        await aside(client.close)
