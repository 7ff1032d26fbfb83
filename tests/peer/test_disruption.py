"""When the network goes away and comes back, and when packets are lost: what was emitted arrives."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from srpnode import Encryption, Message, Network, Subcluster
from srpnode.core import codec
from srpnode.core import node as core
from tests.interop.conftest import Clients, Net
from tests.interop.sut import Introducer, SrpNode
from tests.peer.conftest import DEADLINE_S, StartNode, World, aside, asynchronous, eventually

KEY = Encryption.create_shared_key("subcluster")


def no_clients() -> Clients:
    raise AssertionError("no reference peers here")


async def member(world: World, **options: Any) -> tuple[Network, Subcluster]:
    net = await world.peer(**options)
    sub = await net.subcluster(KEY)
    await net.ready(DEADLINE_S)
    return net, sub


class Wire:
    """A stretch of wire before a node: datagrams of both ways go through it, and it can lose some.

    Peers know the node by this address; each peer gets a socket of its own towards the node, like behind a NAT.
    """

    def __init__(self, address: str, node: tuple[str, int]) -> None:
        self.node = node
        self.lose: Callable[[bytes, bool], bool] = lambda data, inwards: False
        self.lost = 0
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._front.bind((address, 0))
        self._front.setblocking(False)
        self.port: int = self._front.getsockname()[1]
        self._backs: dict[Any, socket.socket] = {}
        asyncio.get_running_loop().add_reader(self._front, self._inwards)

    def _inwards(self) -> None:
        for _ in range(64):
            try:
                data, source = self._front.recvfrom(2048)
            except BlockingIOError:
                return
            back = self._backs.get(source)
            if back is None:
                back = self._backs[source] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                back.bind((self._front.getsockname()[0], 0))
                back.setblocking(False)
                asyncio.get_running_loop().add_reader(back, self._outwards, back, source)
            if self.lose(data, True):
                self.lost += 1
            else:
                back.sendto(data, self.node)

    def _outwards(self, back: socket.socket, peer: Any) -> None:
        for _ in range(64):
            try:
                data = back.recv(2048)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if self.lose(data, False):
                self.lost += 1
            else:
                self._front.sendto(data, peer)

    def close(self) -> None:
        for each in (self._front, *self._backs.values()):
            asyncio.get_running_loop().remove_reader(each)
            each.close()


@asynchronous
async def test_emitted_while_the_nodes_are_down_arrives_when_they_return(start_node: StartNode, net: Net) -> None:
    node = start_node(keep_alive_s=1.0)
    assert isinstance(node, SrpNode)
    async with AsyncExitStack() as stack:
        world = World(net, node, no_clients, stack)
        a, sub_a = await member(world, keep_alive_s=1.0)
        await aside(node._stop)
        before = [b"just gone", os.urandom(20_000)]
        for value in before:  # nobody knows yet that they are away
            await sub_a.emit("news", value)
        await eventually(lambda: not any(peer["proven"] for peer in a.peers()), "the nodes are missed")
        after = [b"long gone", os.urandom(20_000)]
        for value in after:
            await sub_a.emit("news", value)
        assert a.counters()["unpublished"] >= 22
        await aside(node._start)
        _, sub_c = await member(world, keep_alive_s=1.0)
        heard: set[Message] = set()
        sub_c.on("news", heard.add)
        await eventually(lambda: heard == {*before, *after}, "all of it")
        assert a.counters()["unpublished_lost"] == 0


async def behind_wires(
    world: World, stack: AsyncExitStack, lose: Callable[[bytes, bool], bool], **options: Any
) -> tuple[Network, Subcluster, list[Wire]]:
    """A member that hears the nodes through wires that lose what `lose` says, from the start."""
    wires = [Wire(world.net.host(), (entry.address, entry.port)) for entry in world.node.entries]
    for wire in wires:
        stack.callback(wire.close)
        wire.lose = lose
    entries = [
        {"address": wire._front.getsockname()[0], "port": wire.port, "peerId": entry.peer_id}
        for wire, entry in zip(wires, world.node.entries, strict=True)
    ]
    receiver = await world.peer(peers=entries, **options)
    return receiver, await receiver.subcluster(KEY), wires


@asynchronous
async def test_holes_are_filled_by_asking(node: Introducer, net: Net) -> None:
    """A third of the fragments, and the head, are lost on their way to a peer that comes later: it asks for them."""
    async with AsyncExitStack() as stack:
        world = World(net, node, no_clients, stack)
        sender, sub_a = await member(world)
        data = os.urandom(60_000)
        ids = await sub_a.emit("news", data)
        await sender.close()
        lost: set[bytes] = set()

        def lose(datagram: bytes, inwards: bool) -> bool:
            if inwards or datagram[4] != codec.PUBLISH:
                return False
            frame = codec.decode(datagram)
            if frame["packet_id"] not in ids[::3]:
                return False
            lost.add(frame["packet_id"])
            return True

        receiver, sub_b, _ = await behind_wires(world, stack, lose)
        message = await anext(sub_b.events("news"))
        assert message == data
        assert message.verified
        assert lost == set(ids[::3])
        assert receiver.counters()["out_query"] >= len(lost) == 20


@asynchronous
async def test_packets_that_several_peers_hold_are_gathered(node: Introducer, net: Net) -> None:
    """Each of three peers holds a third of a message that nobody else has; who asks gets it whole."""
    async with AsyncExitStack() as stack:
        world = World(net, node, no_clients, stack)
        asker, sub = await member(world)
        parts: list[bytes] = []
        for packet in sub._pack("news", b"x" * 20_000, None):
            parts.append(codec.encode(codec.PUBLISH, **packet))
        await asker.close()
        receiver, sub_b = await member(world)
        arriving = sub_b.events("news")
        for third in range(3):
            holder, _ = await member(world)
            for data in parts[third::3]:
                holder._command(core.PUBLISH, data)
        assert await anext(arriving) == b"x" * 20_000
        assert receiver.counters()["delivered"] >= len(parts)


@asynchronous
async def test_sync_heals_what_nobody_asks_for(node: Introducer, net: Net) -> None:
    """Events in one packet that were lost on the way to one peer come with the next synchronisation."""
    async with AsyncExitStack() as stack:
        world = World(net, node, no_clients, stack)
        sender, sub_a = await member(world)
        sent = {b"event %d" % number for number in range(20)}
        for value in sent:
            await sub_a.emit("news", value)
        await sender.close()
        _, sub_b, wires = await behind_wires(
            world, stack, lambda data, inwards: not inwards and data[4] == codec.PUBLISH, keep_alive_s=2.0
        )
        heard: set[Message] = set()
        sub_b.on("news", heard.add)
        await eventually(lambda: sum(wire.lost for wire in wires) >= 20, "all of them lost")
        assert heard == set()
        for wire in wires:
            wire.lose = lambda data, inwards: False
        await eventually(lambda: heard == sent, "all of them")
