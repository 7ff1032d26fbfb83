"""The loop over real sockets with a real core: it answers, whatever the system does to it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from srpnode.core import codec
from srpnode.core import node as core
from srpnode.net import sockets
from srpnode.net.loop import Loop
from tests.net.echo import Client, Running, calls_of, ping, proven, running, until

IP_PKTINFO, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IP_PMTUDISC_OMIT = 8, 10, 3, 5
UDP_SEGMENT = 103
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def flood(to: tuple[str, int]) -> Iterator[None]:
    """Pings without pause from a thread of their own; nobody reads the answers."""
    over = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            data = ping(1)
            while not over.is_set():
                sock.sendto(data, to)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- answering ----------------------------------------------------------------------------------------------------


def test_thousands_of_pings_are_answered_once_each() -> None:
    with running() as at, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(at.to, f"127.0.1.{i + 1}")) for i in range(8)]
        for number, client in enumerate(clients):
            client.ask(range(number * 10000, number * 10000 + 500))
        for number, client in enumerate(clients):  # and all at once
            client.send(range(number * 10000 + 500, number * 10000 + 550))
        for client in clients:
            client.listen()
            assert set(client.answered.values()) == {at.to}
        until(lambda: at.count("out_datagrams") == at.node.counters()["out_datagrams"], "output was lost")
        assert at.loop.beat(30) >= 0  # the last batch is counted
        counters = at.loop.counters()
        beats = counters["in_datagrams"] - 8 * 550
        assert 0 < beats < 10
        assert counters["out_datagrams"] - beats == at.node.counters()["out_datagrams"] >= 8 * 550
        assert counters["out_bytes"] - beats * 48 == at.node.counters()["out_bytes"]
        assert sum(batches for _, batches in at.loop.handling_times()) == counters["batches"] > 0


def test_answers_come_from_the_address_that_was_asked() -> None:
    with running("0.0.0.0") as at:
        for address in ("127.0.0.1", "127.0.0.2", "127.7.7.7"):
            with Client((address, at.to[1])) as client:
                client.ask(range(10))
                assert set(client.answered.values()) == {(address, at.to[1])}


def test_a_machine_with_one_address_is_not_asked_for_it_each_time() -> None:
    with running("0.0.0.0") as at:
        at.loop.only_address(0x7F000001)
        assert at.main.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 0
        with Client(("127.0.0.1", at.to[1])) as client:
            client.ask(range(10))
            assert set(client.answered.values()) == {("127.0.0.1", at.to[1])}
        at.loop.only_address(0)  # there are several now
        assert at.main.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 1
        with Client(("127.0.0.2", at.to[1])) as client:
            client.ask(range(10))
            assert set(client.answered.values()) == {("127.0.0.2", at.to[1])}
    with running("127.0.0.3") as at:  # bound to one address: nothing changes that
        for address in (0x7F000001, 0):
            at.loop.only_address(address)
            assert at.main.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 0
            with Client(("127.0.0.3", at.to[1])) as client:
                client.ask(range(10))
                assert set(client.answered.values()) == {("127.0.0.3", at.to[1])}


def test_datagrams_that_nobody_waits_for_are_collected() -> None:
    with running() as at, Client(at.to) as client:
        with contextlib.suppress(AssertionError):
            for _ in range(200):
                for _ in range(200):
                    client.sock.sendto(b"no packet at all", at.to)
                assert not at.count("naps")
        assert at.count("naps") > 0
        client.ask(range(10))


def test_the_probe_socket_answers_for_itself() -> None:
    with running() as at, Client(at.to) as client, Client(at.to) as second:
        port = second.sock.getsockname()[1]
        client.sock.sendto(ping(5, probeExternalPort=port), at.to)
        client.waiting = {5}
        second.waiting = {5}
        client.listen()
        second.listen()
        assert client.answered[5] == at.to
        assert second.answered[5] == at.probe.getsockname()


def test_trains_reach_the_core_in_four_times_larger_batches() -> None:
    with running(batch=4) as at, Client(at.to) as client:
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(ping(0))))]
        client.sock.sendmsg([b"".join(map(ping, range(40)))], control, 0, at.to)
        client.waiting = set(range(40))
        client.listen()
        counters = at.loop.counters()
        assert (counters["in_trains"], counters["in_calls"], counters["batches"]) == (1, 1, 3)


@pytest.mark.parametrize("settings", [{"gro": False}, {"gso": False}, {"batch": 1}, {"batch": 256}])
def test_it_answers_whatever_the_settings(settings: dict[str, Any]) -> None:
    with running(**settings) as at, Client(at.to) as client:
        client.ask(range(300))
        for name in ("gro", "gso", "df"):
            assert at.loop.features()[name] == settings.get(name, True)


def test_two_loops_do_not_disturb_each_other() -> None:
    with running() as one, running() as two, Client(one.to) as first, Client(two.to) as second:
        with flood(one.to):
            second.ask(range(1000))
        one.loop.beat(30)  # what is left of the flood has been handled
        second.send(range(1000, 1064))
        first.send(range(1000, 1064))
        first.listen()
        second.listen()
        assert set(first.answered.values()) == {one.to}
        assert set(second.answered.values()) == {two.to}


def test_garbage_leaves_it_answering() -> None:
    with running() as at, Client(at.to) as client:
        for size in (0, 1, 4, 32, 44, 1421, 1600, 1601, 9000, 65504):
            client.sock.sendto(b"\x03\x05\x0b\x11" * 16376 if size == 65504 else os.urandom(size), at.to)
        client.ask(range(10))
        assert at.count("in_datagrams") == 20


# --- what the system refuses --------------------------------------------------------------------------------------


def test_while_output_is_blocked_nothing_is_received_and_commands_are_obeyed(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject), jam_ms=60000) as at, Client(at.to) as client:
        inject.inject_send(errno.EAGAIN, 0, -1)
        client.send(range(100))
        until(lambda: at.count("out_blocked") > 0, "no send was tried")
        received = at.count("in_datagrams")
        client.send(range(100, 200))
        for _ in range(20):
            assert at.loop.command(core.GAUGES, size=core.GAUGES_BYTES)[0] == 0
        assert at.count("in_datagrams") == received
        inject.inject_reset()
        client.listen()
        until(lambda: at.count("out_datagrams") == at.node.counters()["out_datagrams"], "output was lost")


def test_a_batch_that_was_interrupted_by_blocked_output_is_finished(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject), batch=4, jam_ms=60000) as at, Client(at.to) as client:
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(ping(0))))]
        for after in range(4):
            numbers = range(after * 60, after * 60 + 60)
            inject.inject_send(errno.EAGAIN, after, 3)
            client.sock.sendmsg([b"".join(map(ping, numbers))], control, 0, at.to)
            client.waiting = set(numbers)
            client.listen()
        assert at.count("out_blocked") == 12


def test_a_dead_link_does_not_stop_it(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject), jam_ms=30) as at, Client(at.to) as client:
        inject.inject_send(errno.EAGAIN, 0, -1)
        client.send(range(1000, 1200))
        until(lambda: at.count("in_datagrams") == 200, "it stopped receiving")
        until(lambda: at.count("out_drop_jammed") == at.node.counters()["out_datagrams"] > 200, "output was not given up")
        with pytest.raises(BlockingIOError):
            at.loop.beat(0.1)
        inject.inject_reset()
        client.waiting.clear()
        client.ask(range(10))
        assert at.count("jams") > 0


def test_want_of_buffers_delays_answers_only(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject)) as at, Client(at.to) as client:
        inject.inject_send(errno.ENOBUFS, 0, 40)
        client.ask(range(50))
        assert at.count("out_no_buffers") == 40


def test_short_sends_lose_nothing(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject), gso=False) as at, Client(at.to) as client:
        inject.inject_short(1)
        client.ask(range(500))
        assert at.count("out_calls") == at.count("out_datagrams")


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENETUNREACH, errno.EINVAL])
def test_only_the_refused_destination_goes_without_answer(inject: ctypes.CDLL, error: int) -> None:
    with running(calls=calls_of(inject)) as at, Client(at.to) as refused, Client(at.to) as client:
        inject.inject_refuse(refused.sock.getsockname()[1], error)
        for i in range(100):
            refused.send([1000 + i])
            client.send([i])
        client.listen()
        until(lambda: at.count("in_datagrams") == 200, "not all received")
        assert at.loop.beat() >= 0
        dropped = sum(n for name, n in at.loop.counters().items() if name.startswith("out_drop"))
        assert dropped >= 100
        # the heartbeat is the only datagram that is not the core's
        assert at.node.counters()["out_datagrams"] + 1 == at.count("out_datagrams") + dropped
        inject.inject_reset()
        refused.waiting.clear()
        refused.ask(range(2000, 2010))


def test_errors_of_receiving_do_not_stop_it(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject)) as at, Client(at.to) as client:
        for error in (errno.ECONNREFUSED, errno.ENOMEM, errno.EINTR, errno.EIO):
            inject.inject_receive(error, 20)
            client.ask(range(10))
        assert at.count("in_errors") == 60


def test_without_epoll_pwait2_it_waits_in_milliseconds() -> None:
    command = [sys.executable, "-m", "tests.net.without_pwait2"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["epoll_pwait2"] is False
    assert told["idle_rounds"] < 50


def test_a_kernel_without_df_serves_as_well(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject)) as at, Client(at.to) as client:
        client.ask(range(100))
        assert at.loop.features()["df"] is True
        assert at.main.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_PROBE
    with running(calls=calls_of(inject)) as at, Client(at.to) as client:
        inject.inject_option(errno.EPERM)
        client.ask(range(100))
        assert at.loop.features()["df"] is False
        assert at.count("out_df_off") == 1
        assert at.main.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_OMIT


# --- the heartbeat ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "127.3.3.3"])
def test_a_heartbeat_comes_back_and_never_reaches_the_core(address: str) -> None:
    with running(address) as at:
        for i in range(1, 11):
            assert at.loop.beat(30) >= 0
            assert at.count("heartbeats") >= i
            assert at.count("heartbeat_us") > 0
        assert at.node.counters()["in_datagrams"] == 0
        assert at.count("in_datagrams") == at.count("out_datagrams") >= 10


def test_heartbeats_are_heard_in_a_flood() -> None:
    with running() as at, flood(at.to):
        until(lambda: at.count("in_datagrams") > 100, "no flood")
        for _ in range(20):
            assert at.loop.beat(30) >= 0


def test_nobody_else_can_beat() -> None:
    with running() as at, Client(at.to) as client:
        at.loop.beat()
        heard = at.count("heartbeats")
        for i in range(100):
            client.sock.sendto(b"\x03\x05\x0b\x11\0\0\0\0" + bytes([i] * 24), at.to)
        client.ask(range(10))
        assert at.count("heartbeats") == heard
        assert at.node.counters()["in_datagrams"] == 110


def test_a_heartbeat_that_does_not_come_back_is_reported_and_its_late_return_harmless(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject)) as at, Client(at.to) as client:
        inject.inject_receive(errno.ENOMEM, 1 << 30)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                at.loop.beat(0.02)
        inject.inject_reset()
        gc.collect()
        client.ask(range(10))
        assert at.loop.beat(30) >= 0


def test_a_watchdog_is_not_misled(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject), jam_ms=60000) as at, Client(at.to) as client:
        assert at.loop.serves(30)
        inject.inject_send(errno.EAGAIN, 0, -1)  # a jammed link
        assert at.loop.serves(0.1)
        inject.inject_reset()
        inject.inject_refuse(at.to[1], errno.EPERM)  # its own datagrams are lost, those of others are handled
        assert not at.loop.serves(0.1)
        with flood(at.to):
            assert at.loop.serves(1)
        inject.inject_reset()
        assert at.loop.serves(30)
        inject.inject_receive(errno.ENOMEM, 1 << 30)  # it turns, but it is deaf
        client.send(range(10))
        assert not at.loop.serves(0.1)
    assert not at.loop.serves(30)


# --- commands and the pool ----------------------------------------------------------------------------------------


def test_commands_reach_the_core_and_bring_its_answer() -> None:
    with running() as at, Client(at.to) as client:
        result, answer = at.loop.command(core.GAUGES, size=core.GAUGES_BYTES)
        assert result == 0
        assert core.unpack_gauges(answer)["cache_packets"] == 0
        assert at.loop.command(9999, b"question") == (-errno.EINVAL, b"question")
        assert at.loop.command(core.LIMITS, core.pack_limits(control_per_minute=5))[0] == 0
        client.send(range(100))
        client.listen(at_most=95)
        assert at.node.counters()["drop_rate_endpoint"] > 0
        with pytest.raises(ValueError, match="loop's own"):
            at.loop.command(1)


def test_several_threads_may_post() -> None:
    with running() as at, flood(at.to):
        failures: list[BaseException] = []

        def post() -> None:
            try:
                for _ in range(50):
                    assert at.loop.command(core.GAUGES, size=core.GAUGES_BYTES, timeout_s=30)[0] == 0
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_without_a_running_loop_nobody_waits() -> None:
    at = Running(start=False)
    try:
        with pytest.raises(RuntimeError):
            at.loop.beat(30)
        assert at.loop.stop(30)
        at.loop.start()
        assert at.loop.beat(30) >= 0
        assert at.loop.stop(30)
        with pytest.raises(RuntimeError):
            at.loop.command(core.GAUGES, size=core.GAUGES_BYTES, timeout_s=30)
        with pytest.raises(RuntimeError):
            at.loop.start()
        assert not at.loop.alive()
    finally:
        at.close()


def test_the_pool_opens_and_closes() -> None:
    with running() as at, Client(at.to) as client:
        before = descriptors()
        assert at.loop.open_pool() == 256
        assert (descriptors() - before, at.count("pool_open")) == (256, 256)
        assert at.loop.open_pool() == 256
        client.ask(range(10))
        assert at.loop.close_pool() == 256
        assert (descriptors() - before, at.count("pool_open")) == (0, 0)
        assert at.loop.close_pool() == 0
        client.ask(range(10))


def test_without_descriptors_the_pool_is_smaller_and_the_node_serves() -> None:
    with running() as at, Client(at.to) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = set(map(int, os.listdir("/proc/self/fd")))
        free = [number for number in range(soft) if number not in used]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[40], hard))
        try:
            opened = at.loop.open_pool()
            assert opened == at.count("pool_open")
            assert 35 < opened < 45
            assert at.count("pool_no_descriptors") == 1
            client.ask(range(50))
            assert at.loop.beat() >= 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert at.loop.open_pool() == 256
        assert at.loop.close_pool() == 256


def test_the_core_has_the_pool_opened_when_it_needs_one() -> None:
    """A node behind a Hard NAT is introduced to a peer behind an Easy one: it pings that peer from many ports."""
    settings = {"nat_type": 5, "app_bytes": 65536, "attempts": 4}
    with running(node=settings) as at, Client(at.to) as introducer, Client(at.to) as easy:
        assert at.loop.command(core.JOIN, bytes(range(64)))[0] == 0
        proven(introducer, bytes(32))
        intro: dict[str, str | bool | int | float] = {
            "requesterPeerId": "ab" * 32,
            "responderPeerId": at.peer_id.hex(),
            "natType": 7,
            "address": "127.0.0.1",
            "port": easy.sock.getsockname()[1],
        }
        introducer.sock.sendto(
            codec.encode(
                codec.INTRO,
                hops=1,
                cluster_id=bytes(range(32)),
                subcluster_id=bytes(range(32, 64)),
                usr1=b"%d" % (time.time_ns() // 1_000_000),
                message=codec.write_message(codec.INTRO, intro),
            ),
            at.to,
        )
        easy.sock.settimeout(30)
        ports = {easy.sock.recvfrom(2048)[1][1] for _ in range(10)}
        assert len(ports) == 10
        assert at.to[1] not in ports
        assert at.count("pool_open") == 256


def test_the_application_is_woken_when_something_waits_for_it() -> None:
    notify = os.eventfd(0, os.EFD_NONBLOCK)
    with running(node={"app_bytes": 65536}, notify_fd=notify) as at, Client(at.to) as client:
        proven(client, bytes(32))
        for number in range(3):
            for part in range(2):
                client.sock.sendto(
                    codec.encode(
                        codec.STREAM,
                        packet_id=bytes([number, part] * 16),
                        usr3=at.peer_id,
                        usr4=bytes(32),
                        message=b"%d %d" % (number, part),
                    ),
                    at.to,
                )
            heard: list[bytes] = []
            while len(heard) < 2:
                assert select.select([notify], [], [], 30)[0]
                assert os.eventfd_read(notify) == 1
                result, answer = at.loop.command(core.APP, size=65536)
                assert result > 0
                heard += [codec.decode(event[1])["message"] for event in core.unpack_app(answer[:result])]
            assert heard == [b"%d 0" % number, b"%d 1" % number]
    os.close(notify)


def test_sockets_that_are_dropped_leave_no_descriptor() -> None:
    gc.collect()
    before = descriptors()
    for _ in range(5):
        with running(pool_size=20) as at:
            at.loop.open_pool()
        del at
        gc.collect()
    assert descriptors() == before


# --- its life -----------------------------------------------------------------------------------------------------


def test_what_waits_in_the_socket_survives_the_loop() -> None:
    """As in a restart that keeps the sockets: nothing that arrives in between is lost."""
    first = Running()
    with Client(first.to) as client:
        client.ask(range(100))
        kept = first.main.dup()
        first.close()
        client.send(range(100, 300))
        with running(main=sockets.Inherited([kept.detach()]).open_udp(*first.to)):
            client.listen()
            assert set(client.answered.values()) == {first.to}


def test_a_socket_is_replaced_without_losing_what_it_holds() -> None:
    with running() as at, Client(at.to) as client:
        client.send(range(300))
        fresh = sockets.open_udp("127.0.0.1", 0)
        old = at.loop.replace(0, fresh)
        assert old is at.main
        client.listen()
        to = fresh.getsockname()
        with Client(to) as other:
            other.ask(range(100))
            assert set(other.answered.values()) == {to}
        assert at.loop.beat() >= 0
        client.send([1000])
        assert old.recv(2000) == ping(1000)  # nobody else reads it
        fresh.close()


def test_a_useless_socket_does_not_replace_one() -> None:
    with running() as at, Client(at.to) as client:
        with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match=os.strerror(errno.EAFNOSUPPORT)):
            at.loop.replace(0, other)
        closed = sockets.open_udp("127.0.0.1", 0)
        closed.close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            at.loop.replace(1, closed)
        client.ask(range(100))
        assert at.loop.beat() >= 0


def test_it_stops_in_a_flood() -> None:
    for _ in range(5):
        with running() as at, flood(at.to):
            until(lambda at=at: at.count("in_datagrams") > 50, "no flood")
            assert at.loop.stop(30)


def test_it_stops_though_others_wait_for_it(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject)) as at:
        inject.inject_receive(errno.ENOMEM, 1 << 30)
        failures: list[Exception] = []

        def beat() -> None:
            try:
                at.loop.beat(600)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=beat) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: at.count("commands") > 0, "no heartbeat was asked for")
        assert at.loop.command(core.GAUGES, size=core.GAUGES_BYTES)[0] == 0
        assert at.loop.stop(30)
        for thread in threads:
            thread.join(30)
        assert [type(error) for error in failures] == [RuntimeError, RuntimeError]


def test_it_stops_while_output_is_blocked(inject: ctypes.CDLL) -> None:
    with running(calls=calls_of(inject), jam_ms=60000) as at, Client(at.to) as client:
        inject.inject_send(errno.EAGAIN, 0, -1)
        client.send(range(10))
        until(lambda: at.count("out_blocked") > 0, "no send was tried")
        assert at.loop.stop(30)


def test_the_main_thread_hears_signals(inject: ctypes.CDLL) -> None:
    class HeardError(Exception):
        pass

    def hear(number: int, frame: FrameType | None) -> None:
        raise HeardError

    before = signal.signal(signal.SIGALRM, hear)
    try:
        with running(calls=calls_of(inject)) as at:
            with flood(at.to):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(HeardError):
                    at.loop.join(60)
            inject.inject_receive(errno.ENOMEM, 1 << 30)  # and while it waits for an answer
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(HeardError):
                at.loop.beat(60)
            inject.inject_reset()
            assert at.loop.beat(30) >= 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_no_signal_reaches_its_thread() -> None:
    with running() as at:
        at.loop.beat()
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/status") as status:
                fields = dict(line.split(":\t", 1) for line in status)
            if fields["Name"].strip() == "srp-test":
                blocked = int(fields["SigBlk"], 16)
                assert all(blocked >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM))
                return
        pytest.fail("no thread of that name")


def test_it_does_nothing_when_nothing_happens() -> None:
    with running() as at:
        at.loop.beat()
        before = at.count("rounds")
        assert not at.loop.join(0.5)
        assert at.count("rounds") - before < 50


def test_the_core_is_ticked_in_a_flood() -> None:
    peer = (0x7F000001, 9, bytes(range(32)))
    with running(node={"keep_alive": 0.05, "indexed_peers": [peer]}) as at, flood(at.to):
        until(lambda: at.count("ticks") > 20, "no ticks")


def test_kernel_drops_are_counted() -> None:
    at = Running(start=False)
    try:
        at.main.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with Client(at.to) as client:
            for i in range(200):
                client.sock.sendto(ping(i), at.to)
            dropped = at.count("in_kernel_drops_now")
            assert 0 < dropped < 200
            at.loop.start()
            until(lambda: at.count("in_datagrams") == 200 - dropped, "not all received")
            client.waiting.clear()
            client.send([5000])
            deadline = set(range(200)) | {5000}
            client.waiting = deadline
            client.listen(at_most=dropped)
            assert 5000 in client.answered
            assert at.count("in_kernel_drops_now") == dropped
            client.waiting.clear()

            def counted() -> bool:
                client.ask([6000])
                return at.count("in_kernel_drops") == dropped

            until(counted, "they were not counted")
    finally:
        at.close()


def strangers(at: Running) -> int:
    """How many the core answers in a second now."""
    result, answer = at.loop.command(core.GAUGES, size=core.GAUGES_BYTES, timeout_s=30)
    assert result == 0
    return int(core.unpack_gauges(answer)["strangers_per_second"])


@contextlib.contextmanager
def overrun(node: dict[str, Any], data: bytes) -> Iterator[tuple[Running, threading.Event]]:
    """A loop that finds its small receive buffer full of such datagrams, again and again, until the event is set."""
    at = Running(start=False, node=node)
    try:
        at.main.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        over = threading.Event()

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                while not over.is_set():
                    for _ in range(100):
                        sock.sendto(data, at.to)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            until(lambda: at.count("in_kernel_drops_now") > 100, "the buffer took all")
            at.loop.start()
            yield at, over
        finally:
            over.set()
            thread.join()
    finally:
        at.close()


def test_strangers_get_less_when_the_receive_buffer_runs_over() -> None:
    with overrun({"unproven_per_second": 6400}, ping(1)) as (at, _):
        until(lambda: at.node.counters()["unproven_cuts"] > 2, "nothing was taken from them")
        assert strangers(at) < 1600
    assert at.count("in_kernel_drops") > 0


def test_strangers_get_less_when_the_loop_never_rests(inject: ctypes.CDLL) -> None:
    """Nothing is lost and the buffer is nearly empty, but never quite."""
    with running(calls=calls_of(inject), node={"unproven_per_second": 6400}) as at:
        inject.inject_feed(ping(1), len(ping(1)))
        with Client(at.to) as client:
            client.send([2])
            until(lambda: at.node.counters()["unproven_cuts"] > 2, "nothing was taken from them")
            assert strangers(at) < 1600
        assert at.count("in_kernel_drops_now") == 0


@contextlib.contextmanager
def crowded(name: str) -> Iterator[None]:
    """Another program wants the core that the thread of this name has to itself, and comes first."""
    core_number = min(os.sched_getaffinity(0))
    threads = {(task / "comm").read_text().strip(): int(task.name) for task in Path("/proc/self/task").iterdir()}
    thread = threads[name]
    os.sched_setaffinity(thread, {core_number})
    os.setpriority(os.PRIO_PROCESS, thread, 10)
    spin = f"import os\nos.sched_setaffinity(0, {{{core_number}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as other:
        try:
            yield
        finally:
            other.kill()


def test_strangers_get_less_when_others_have_the_core() -> None:
    """Naps between a flood's batches end late; no queue is seen, and the loop has little to do."""
    with running(node={"unproven_per_second": 6400}) as at, Client(at.to) as client:

        def asked() -> bool:
            for _ in range(500):
                client.send([1])
                for _ in range(10):
                    client.sock.sendto(b"no packet at all", at.to)
                time.sleep(0.0002)
            return at.node.counters()["unproven_cuts"] > 2

        until(lambda: asked() or at.count("naps") > 0, "no nap though hardly anything is answered")
        with crowded("srp-test"):
            until(asked, "nothing was taken from them")
        assert at.count("in_kernel_drops_now") == 0


def test_and_more_again_when_it_does_not() -> None:
    with overrun({"unproven_per_second": 6400}, ping(1)) as (at, over):
        until(lambda: at.node.counters()["unproven_cuts"] > 2, "nothing was taken from them")
        over.set()
        at.loop.beat(30)
        least = strangers(at)
        with Client(at.to, "127.0.2.1") as client:

            def more() -> bool:
                client.send([1])
                return strangers(at) > least

            until(more, "it never came back")


def test_garbage_that_fills_the_buffer_takes_nothing_from_strangers() -> None:
    with overrun({"unproven_per_second": 6400}, b"no packet" * 20) as (at, _), Client(at.to, "127.0.2.1") as client:
        before = at.count("in_kernel_drops")
        until(lambda: at.count("in_kernel_drops") > before + 1000, "nothing was lost")

        def served() -> bool:
            client.send([1])
            return at.node.counters()["in_ping"] > 10

        until(served, "newcomers were locked out")
        assert strangers(at) == 6400
        assert at.node.counters()["unproven_cuts"] == 0


@pytest.mark.parametrize("settings", [{"batch": 0}, {"batch": 257}, {"pool_size": 257}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Running(start=False, **settings)


def test_a_loop_needs_a_socket() -> None:
    closed = sockets.open_udp("127.0.0.1", 0)
    closed.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        Loop(core.Node(peer_id=bytes(32), seed=bytes(32), peers=10), closed)
