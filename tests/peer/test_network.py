"""The Python peer among its like: hello world, events of every size, streams, and what a program can rely on."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest

import srpnode
from srpnode import Encryption, Message, Network, Peer, Subcluster, network
from srpnode.core import codec
from srpnode.core.node import Node
from tests.peer.conftest import DEADLINE_S, NewWorld, World, asynchronous, eventually

KEY = Encryption.create_shared_key("subcluster")
SIZES = (0, 20, 1_000, 10_000, 200_000)


async def member(world: World, **options: Any) -> tuple[Network, Subcluster]:
    """A peer that is ready, and its subcluster."""
    net = await world.peer(**options)
    sub = await net.subcluster(KEY)
    await net.ready(DEADLINE_S)
    return net, sub


async def met(sub: Subcluster, other: Network) -> Peer:
    """The other, once it has joined."""
    return await eventually(lambda: sub.peers.get(other.peer_id), "#join")


@asynchronous
async def test_hello_world_of_the_draft(new_world: NewWorld) -> None:
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        heard: asyncio.Queue[tuple[int, Message]] = asyncio.Queue()
        streamed: asyncio.Queue[Message] = asyncio.Queue()
        joined: asyncio.Queue[Peer] = asyncio.Queue()
        for number in range(2):
            # Line for line what the draft shows, for each of two programs.
            peer_id = Encryption.create_id()
            signing_keys = Encryption.create_key_pair()
            cluster_id = Encryption.create_cluster_id(world.cluster)
            socket = await world.peer(peer_id=peer_id, cluster_id=cluster_id, signing_keys=signing_keys)
            shared_key = Encryption.create_shared_key("greetings")
            greetings = await socket.subcluster(shared_key=shared_key)
            greetings.on("hello, world", lambda value, number=number: heard.put_nowait((number, value)))
            socket.on("#ready", lambda info, to=greetings: to.emit("hello, world", {"language": "english"}))

            @greetings.on("#join")
            def on_join(peer: Peer) -> None:
                peer.on("hello, world", lambda value: streamed.put_nowait(value))
                joined.put_nowait(peer)

        values = [await heard.get() for _ in range(2)]
        assert sorted(number for number, _ in values) == [0, 1]
        assert all(value.json() == {"language": "english"} and value.verified for _, value in values)
        for _ in range(2):
            peer = await joined.get()
            await peer.emit("hello, world", "in person")
        assert [await streamed.get() for _ in range(2)] == [b"in person"] * 2


@asynchronous
async def test_events_and_streams_of_all_sizes(new_world: NewWorld) -> None:
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        (a, sub_a), (b, sub_b) = await member(world), await member(world)
        for sender, sub, receiver, other in ((a, sub_a, b, sub_b), (b, sub_b, a, sub_a)):
            for size in SIZES:
                data = os.urandom(size)
                published = other.events("news")
                await sub.emit("news", data)
                message = await anext(published)
                assert message == data
                assert message.verified
                assert message.public_key == sender._signing_keys.public_key
                assert message.peer_id == ""
            peer = await met(sub, receiver)
            for size in SIZES:
                data = os.urandom(size)
                arriving = other.events("chat")
                await peer.emit("chat", data)
                message = await anext(arriving)
                assert message == data
                assert message.verified
                assert message.peer_id == sender.peer_id


@asynchronous
async def test_a_subcluster_joined_later_meets_at_once(new_world: NewWorld) -> None:
    """Its members were met in another one, or were introduced on behalf of this one before; nothing is repeated for an hour."""
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        (a, sub_a), (b, sub_b) = await member(world, keep_alive_s=3600), await member(world, keep_alive_s=3600)
        await met(sub_a, b)
        await met(sub_b, a)
        later_a = await a.subcluster(Encryption.create_shared_key("later"))
        # b is introduced to a on behalf of a subcluster that it does not know, before it joins that.
        await eventually(lambda: b.counters()["in_intro"] > 1, "an introduction")
        later_b = await b.subcluster(Encryption.create_shared_key("later"))
        await met(later_a, b)
        await met(later_b, a)
        later_b.leave()
        await met(await b.subcluster(Encryption.create_shared_key("later")), a)


@asynchronous
async def test_callbacks_iterators_and_their_end(new_world: NewWorld) -> None:
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        (a, sub_a), (_, sub_b) = await member(world), await member(world)
        called: list[bytes] = []
        awaited: list[bytes] = []

        @sub_b.on("one")
        async def awaiting(value: Message) -> None:
            await asyncio.sleep(0)
            awaited.append(value)

        callback = sub_b.on("one", called.append)
        iterator, again, unheard = sub_b.events("one"), sub_b.events("one"), sub_b.events("two")
        await sub_a.emit("one", b"1")
        assert await anext(iterator) == await anext(again) == b"1"
        await eventually(lambda: called == awaited == [b"1"], "both callbacks")
        sub_b.off("one", callback)
        await sub_a.emit("one", b"2")
        assert await anext(iterator) == b"2"
        await eventually(lambda: awaited == [b"1", b"2"], "the one that is left")
        assert called == [b"1"]
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        sub_b.on("three", lambda value: 1 // 0)
        last = sub_b.events("three")
        await sub_a.emit("three", b"")
        await anext(last)
        assert isinstance(failures[0]["exception"], ZeroDivisionError)
        sub_b.leave()
        assert [value async for value in unheard] == []
        with pytest.raises(srpnode.ClosedError):
            await sub_b.emit("one", b"3")
        await a.close()
        with pytest.raises(srpnode.ClosedError):
            await sub_a.emit("one", b"3")
        with pytest.raises(srpnode.ClosedError):
            await a.ready()


@asynchronous
async def test_ttl_is_what_the_event_says(new_world: NewWorld) -> None:
    """Short events are gone from the network when their time is over; others stay."""
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        _, sub = await member(world)
        (short,) = await sub.emit("news", b"short", ttl_s=1)
        (long,) = await sub.emit("news", b"long", ttl_s=3600)
        late = await world.peer()
        await late.ready(DEADLINE_S)
        assert (await late.fetch(long, DEADLINE_S)).frame["ttl"] == 3_600_000
        async with asyncio.timeout(DEADLINE_S):
            while True:  # it comes to the late one too, and expires there as well
                try:
                    await late.fetch(short, 1.0)
                except srpnode.UnreachableError:
                    return
                await asyncio.sleep(0.2)


@asynchronous
async def test_slow_callbacks_hold_the_rest_back(new_world: NewWorld) -> None:
    """No more callbacks run at once than TASKS_MAX; what comes meanwhile waits in the core and is not lost."""
    from srpnode.peer import TASKS_MAX

    async with AsyncExitStack() as stack:
        world = new_world(stack)
        (_, sub_a), (b, sub_b) = await member(world), await member(world)
        go = asyncio.Event()
        done: list[bytes] = []
        running = most = 0

        @sub_b.on("work")
        async def work(value: Message) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1
            done.append(value)

        count = TASKS_MAX + 500
        for number in range(count):
            await sub_a.emit("work", str(number))
        await eventually(lambda: running >= TASKS_MAX, "as many as may be")
        await eventually(lambda: b.counters()["delivered"] >= count, "all in the core")
        go.set()
        await eventually(lambda: len(done) == count, "all of them")
        assert most < TASKS_MAX + 300  # what one look at the core brought


@asynchronous
async def test_closing_leaves_nothing_behind(new_world: NewWorld) -> None:
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        await (await world.peer()).close()  # what is made once and stays
        gc.collect()
        files, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(3):
            net, sub = await member(world)
            cancelled = asyncio.Event()

            async def endless(_: object, seen: asyncio.Event = cancelled) -> None:
                try:
                    await asyncio.sleep(3600)
                finally:
                    seen.set()

            net.on("#ready", endless)
            waiting = asyncio.create_task(sub.once("never", None))
            await asyncio.sleep(0)
            await net.close()
            await net.close()
            assert cancelled.is_set()
            with pytest.raises(srpnode.ClosedError):
                await waiting
        del net, sub
        gc.collect()
        assert threading.active_count() <= threads
        assert len(set(os.listdir("/proc/self/fd")) - files) <= 1  # the directory itself


@asynchronous
async def test_a_cancelled_emit_ends_at_once(new_world: NewWorld) -> None:
    async with AsyncExitStack() as stack:
        world = new_world(stack)
        _, sub = await member(world, publish_per_minute=10)
        task = asyncio.create_task(sub.emit("news", os.urandom(100_000)))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await sub._network.close()


@asynchronous
async def test_emit_waits_when_no_more_can_be_kept() -> None:
    """Nobody is there: as much as the core keeps is taken, then emit waits, and says so in the end."""
    dead = [{"address": "127.0.0.1", "port": 9 + i, "peerId": Encryption.create_id()} for i in range(2)]
    cluster_id = Encryption.create_cluster_id()
    async with await network(cluster_id=cluster_id, peers=dead, address="127.0.0.1", publish_per_minute=0) as net:
        sub = await net.subcluster(KEY)

        async def many() -> None:
            for _ in range(5000):
                await sub.emit("news", b"x", timeout_s=0.3)

        with pytest.raises(srpnode.StalledError, match="network"):
            await many()
        assert net.counters()["unpublished"] == net.counters()["published"] > 1000
        assert net.counters()["unpublished_lost"] == 0


def test_a_full_core_refuses() -> None:
    """The core's own word for it."""
    node = Node(peer_id=bytes(32), seed=bytes(32), nat_type=0, app_bytes=65536, cache_max_bytes=16_000_000)

    def many() -> None:
        for number in range(100_000):
            node.publish(codec.encode(codec.PUBLISH, packet_id=codec.sha256(b"%d" % number), message=b"x"))
            node.take()

    with pytest.raises(BlockingIOError):
        many()
    assert node.counters()["unpublished"] == node.counters()["cache_inserted"] > 1000


class TestBadInput:
    """Typed exceptions with a remedy, never a hang."""

    @asynchronous
    async def test_no_peers(self) -> None:
        cluster_id = Encryption.create_cluster_id("x")
        cases: list[tuple[Any, str]] = [
            ([], "name at least two"),
            ([{"address": "127.0.0.1"}], "peerId"),
            ([{"address": "host.example", "port": 1, "peerId": "00" * 32}], "IPv4"),
            ([{"address": "127.0.0.1", "port": 70000, "peerId": "00" * 32}], "65535"),
            ([{"address": "127.0.0.1", "port": 7000, "peerId": "00" * 31}], "64 hex"),
            ([{"address": "127.0.0.1", "port": 7000, "peerId": "00" * 32}] * 2, "two peers with one"),
            (["127.0.0.1"], "HOST:PORT"),
            (["127.0.0.1:port"], "HOST:PORT"),
            ("127.0.0.1:3511", "a list of at least two"),
            (None, "name at least two"),
            ([7], "peerId"),
        ]
        for peers, text in cases:
            with pytest.raises(srpnode.NoPeersError, match=text):
                await network(cluster_id=cluster_id, peers=peers)

    @asynchronous
    async def test_unreachable_peers(self) -> None:
        cluster_id = Encryption.create_cluster_id("x")
        with pytest.raises(srpnode.UnreachableError, match=r"no answer from 127\.0\.0\.1:9"):
            await network(cluster_id=cluster_id, peers=["127.0.0.1:9", "127.0.0.1:10"], timeout_s=0.3)
        with pytest.raises(srpnode.UnreachableError, match=r"no-such-host\.invalid"):
            await network(cluster_id=cluster_id, peers=["no-such-host.invalid:3511"], timeout_s=5)
        dead = [{"address": "127.0.0.1", "port": 9, "peerId": Encryption.create_id()}]
        async with await network(cluster_id=cluster_id, peers=dead, address="127.0.0.1") as net:
            with pytest.raises(srpnode.NotReadyError, match="srpnode ping"):
                await net.ready(0.2)
            with pytest.raises(srpnode.UnreachableError, match="nobody"):
                await net.fetch(bytes(32), 0.2)

    @asynchronous
    async def test_keys(self) -> None:
        entry = {"address": "127.0.0.1", "port": 9, "peerId": Encryption.create_id()}
        good = Encryption.create_cluster_id("x")
        with pytest.raises(srpnode.KeyLengthError, match=r"cluster_id: 32 bytes.*Encryption"):
            await network(cluster_id=b"short", peers=[entry])
        with pytest.raises(srpnode.KeyLengthError, match="peer_id"):
            await network(cluster_id=good, peers=[entry], peer_id="no hex")
        for keys in (srpnode.KeyPair(bytes(32), bytes(32)), "keys"):
            with pytest.raises(srpnode.KeyLengthError, match="private_key"):
                await network(cluster_id=good, peers=[entry], signing_keys=keys)  # type: ignore[arg-type]
        with pytest.raises(srpnode.KeyLengthError, match="seed"):
            Encryption.create_key_pair(b"short")
        async with await network(cluster_id=good, peers=[entry], address="127.0.0.1") as net:
            with pytest.raises(srpnode.KeyLengthError, match="shared_key"):
                await net.subcluster(b"short")
            with pytest.raises(srpnode.KeyLengthError, match="packet_id"):
                await net.fetch(b"short")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("port", 70_000),
            ("port", "any"),
            ("keep_alive_s", -1),
            ("keep_alive_s", float("nan")),
            ("cache_bytes", 1 << 80),
            ("max_peers", -5),
            ("publish_per_minute", -5),
            ("timeout_s", 0),
        ],
    )
    def test_settings(self, name: str, value: Any) -> None:
        entry = {"address": "127.0.0.1", "port": 9, "peerId": Encryption.create_id()}
        options: dict[str, Any] = {"cluster_id": bytes(32), "peers": [entry], "address": "127.0.0.1", name: value}
        with pytest.raises(ValueError, match=rf"{name}: \S+ to \S+, not "):
            asyncio.run(network(**options))

    @asynchronous
    async def test_data(self) -> None:
        entry = {"address": "127.0.0.1", "port": 9, "peerId": Encryption.create_id()}
        async with await network(cluster_id=bytes(32), peers=[entry], address="127.0.0.1") as net:
            sub = await net.subcluster(KEY)
            with pytest.raises(srpnode.TooLargeError, match="in parts"):
                await sub.emit("news", bytes(8_000_001))
            for event in ("", "#join"):
                with pytest.raises(ValueError, match="name"):
                    await sub.emit(event, b"")
            for ttl_s in (0, -1, 21_601):
                with pytest.raises(ValueError, match="ttl_s"):
                    await sub.emit("news", b"", ttl_s=ttl_s)
            with pytest.raises(TypeError):
                await sub.emit("news", {"not": object()})
            with pytest.raises(ValueError, match="JSON"):
                await sub.emit("news", {"not": float("nan")})
            with pytest.raises(srpnode.SilentError, match=r"'news' within 0\.05 s"):
                await sub.once("news", 0.05)
            with pytest.raises(srpnode.NetworkError, match="use"):
                await network(cluster_id=bytes(32), peers=[entry], address="127.0.0.1", port=net._sockets[0].getsockname()[1])

            async def many() -> None:
                for _ in range(100):
                    await net.subcluster(os.urandom(32))

            with pytest.raises(srpnode.NetworkError, match="leave one"):
                await many()

    def test_exceptions_are_of_the_usual_kinds_too(self) -> None:
        assert issubclass(srpnode.NotReadyError, TimeoutError)
        assert issubclass(srpnode.StalledError, TimeoutError)
        assert issubclass(srpnode.SilentError, TimeoutError)
        assert issubclass(srpnode.TooLargeError, ValueError)
        assert issubclass(srpnode.KeyLengthError, ValueError)
