"""Batches over real loopback sockets: what leaves, what arrives, and what happens to what the kernel refuses."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from srpnode.net import filter as filters
from tests.net.conftest import CEXT, HERE, SANITIZERS, Compile
from tests.net.udp import BLOCKED, DONE, MAIN, POOL, PROBE, STALLED, Datagram, Udp, udp

IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IP_PMTUDISC_OMIT = 10, 3, 5


@pytest.fixture
def io(inject: ctypes.CDLL) -> Iterator[Udp]:
    with Udp(inject) as made:
        yield made


def name_of(sock: socket.socket) -> tuple[str, int]:
    name: tuple[str, int] = sock.getsockname()
    return name


def payloads(count: int, size: int = 0) -> list[bytes]:
    """Distinct ones; of different sizes when no size is given."""
    return [b"%06d" % i + b"." * (size - 6 if size else i % 50 * 10) for i in range(count)]


def all_of(sock: socket.socket, count: int) -> list[bytes]:
    return [sock.recv(2048) for _ in range(count)]


def nothing_waits(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        sock.recv(2048)
    except BlockingIOError:
        return True
    return False


# --- what leaves --------------------------------------------------------------------------------------------------


def test_a_large_output_leaves_whole_and_in_order(io: Udp) -> None:
    io.use(udp())
    with udp(receive_bytes=1 << 22) as peer:
        sent = payloads(1000)
        assert io.send([Datagram(data, name_of(peer)) for data in sent]) == DONE
        assert all_of(peer, 1000) == sent
        counters = io.counters()
        assert counters["out_datagrams"] == 1000
        assert counters["out_bytes"] == sum(map(len, sent))


def test_equal_datagrams_to_one_destination_leave_as_one_message(io: Udp) -> None:
    io.use(udp())
    with udp() as peer:
        sent = [*payloads(10, 1000), b"the shorter end"]
        assert io.send([Datagram(data, name_of(peer)) for data in sent]) == DONE
        assert all_of(peer, 11) == sent  # a socket that knows nothing of trains gets single datagrams
        counters = io.counters()
        assert (counters["out_calls"], counters["out_trains"], counters["out_train_datagrams"]) == (1, 1, 11)


def test_a_train_arrives_as_one_message_and_comes_apart(inject: ctypes.CDLL) -> None:
    with Udp(inject) as sender, Udp(inject, gro=True) as receiver, udp() as source, udp() as sink:
        sender.use(source)
        receiver.use(sink, gro=True)
        sent = [*payloads(40, 1200), b"end"]
        assert sender.send([Datagram(data, name_of(sink)) for data in sent]) == DONE
        assert receiver.receive() == 1
        parts = [receiver.take(16), receiver.take(16), receiver.take(16), receiver.take(16)]
        assert [len(part) for part in parts] == [16, 16, 9, 0]
        got = [item for part in parts for item in part]
        assert [item.data for item in got] == sent
        assert {(item.to, item.local, item.socket) for item in got} == {(name_of(source), "127.0.0.1", MAIN)}
        counters = receiver.counters()
        assert (counters["in_trains"], counters["in_datagrams"], counters["in_calls"]) == (1, 41, 1)


def test_trains_end_at_64_datagrams_and_at_65000_bytes(io: Udp) -> None:
    io.use(udp())
    with udp(receive_bytes=1 << 22) as peer:
        small, large = payloads(130, 100), payloads(100, 1400)
        assert io.send([Datagram(data, name_of(peer)) for data in small + large]) == DONE
        assert all_of(peer, 230) == small + large
        # 64 + 64 + 2 small, 46 + 46 + 8 large
        assert io.counters()["out_trains"] == 6
        assert io.counters()["out_train_datagrams"] == 230


def test_another_destination_local_address_or_socket_ends_a_train(io: Udp) -> None:
    io.use(udp("0.0.0.0"))
    io.use(udp(), PROBE)
    with udp() as one, udp() as two:
        data = b"x" * 500
        items = [
            Datagram(data, name_of(one)),
            Datagram(data, name_of(two)),
            Datagram(data, name_of(two), local="127.0.0.3"),
            Datagram(data, name_of(two), socket=PROBE),
        ]
        assert io.send(items) == DONE
        assert "out_trains" not in io.counters()
        assert one.recv(2048) == data
        assert len(all_of(two, 3)) == 3


def test_small_datagrams_leave_with_df_and_before_the_others(io: Udp) -> None:
    sock = io.use(udp())
    with udp() as peer:
        small, large = b"s" * 548, b"l" * 549
        assert io.send([Datagram(data, name_of(peer)) for data in (large, small + b"", b"a")]) == DONE
        assert all_of(peer, 3) == [b"a", large, small]  # the one behind a larger one leaves with it
        assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_OMIT
        assert io.counters()["out_df_changes"] == 2
        assert io.send([Datagram(small, name_of(peer))]) == DONE
        assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_PROBE
        assert io.send([Datagram(small, name_of(peer))]) == DONE
        assert io.counters()["out_df_changes"] == 3


def test_small_datagrams_that_an_interface_refuses_with_df_leave_without(io: Udp, inject: ctypes.CDLL) -> None:
    sock = io.use(udp())
    with udp() as peer:
        inject.inject_send(errno.EMSGSIZE, 0, 1)
        sent = [b"x" * size for size in range(1, 6)]
        assert io.send([Datagram(data, name_of(peer)) for data in sent]) == DONE
        assert all_of(peer, 5) == sent
        assert not io.small_df
        assert io.counters()["out_df_off"] == 1
        assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_OMIT


def test_the_local_address_is_the_source(io: Udp) -> None:
    main = io.use(udp("0.0.0.0"))
    with udp() as peer:
        for local in ("127.0.0.9", "127.1.2.3"):
            assert io.send([Datagram(b"a", name_of(peer), local=local)]) == DONE
            assert peer.recvfrom(10) == (b"a", (local, name_of(main)[1]))


def test_main_probe_and_pool_leave_from_their_own_ports(io: Udp) -> None:
    sockets = {index: io.use(udp(), index) for index in (MAIN, PROBE, POOL, POOL + 1)}
    with udp() as peer:
        mixed = [POOL, MAIN, PROBE, POOL + 1, MAIN, POOL, PROBE, POOL + 5]
        assert io.send([Datagram(b"%d" % i, name_of(peer), socket=s) for i, s in enumerate(mixed)]) == DONE
        got = [peer.recvfrom(10) for _ in range(7)]
        assert [data for data, _ in got] == [b"1", b"4", b"2", b"6", b"0", b"3", b"5"]
        for data, source in got:
            assert source == name_of(sockets[mixed[int(data)]])
        assert io.counters()["out_drop_no_socket"] == 1
        assert nothing_waits(peer)


# --- what the kernel refuses --------------------------------------------------------------------------------------


def test_a_bad_destination_drops_only_itself(io: Udp) -> None:
    io.use(udp())
    with udp() as peer:
        good = name_of(peer)
        bad = {3: ("127.0.0.1", 0), 7: ("255.255.255.255", 9), 19: ("127.0.0.1", 0), 29: ("240.0.0.1", 9)}
        sent = payloads(30)
        assert io.send([Datagram(data, bad.get(i, good)) for i, data in enumerate(sent)]) == DONE
        assert all_of(peer, 26) == [data for i, data in enumerate(sent) if i not in bad]
        counters = io.counters()
        assert counters["out_datagrams"] == 26
        assert counters["out_drop_address"] >= 2  # port 0 is EINVAL
        assert counters["out_drop_forbidden"] == 1  # a broadcast is EACCES
        assert sum(n for name, n in counters.items() if name.startswith("out_drop")) == 4


def test_a_local_address_that_is_gone_drops_only_what_should_leave_from_it(io: Udp) -> None:
    io.use(udp("0.0.0.0"))
    with udp() as peer:
        gone = [Datagram(b"x" * 100, name_of(peer), local="203.0.113.77") for _ in range(5)]
        here = [Datagram(b"y" * 100, name_of(peer), local="127.0.0.4") for _ in range(5)]
        assert io.send(gone + here) == DONE
        assert all_of(peer, 5) == [b"y" * 100] * 5
        assert sum(n for name, n in io.counters().items() if name.startswith("out_drop")) == 5
        assert io.trains


def test_a_train_refused_for_its_destination_does_not_end_the_others(io: Udp, inject: ctypes.CDLL) -> None:
    io.use(udp())
    with udp() as peer, udp() as refused:
        inject.inject_refuse(name_of(refused)[1], errno.EINVAL)
        sent = payloads(5, 100)
        assert io.send([Datagram(data, name_of(to)) for to in (refused, peer) for data in sent]) == DONE
        assert all_of(peer, 5) == sent
        counters = io.counters()
        assert (counters["out_drop_address"], counters["out_train_refused"], counters["out_trains"]) == (5, 1, 1)
        assert io.trains


def test_a_datagram_that_is_too_big_is_dropped_alone(io: Udp) -> None:
    io.use(udp())
    with udp() as peer:
        assert io.send([Datagram(d, name_of(peer)) for d in (b"a", b"b" * 65508, b"c")]) == DONE
        assert all_of(peer, 2) == [b"a", b"c"]
        assert io.counters()["out_drop_too_big"] == 1


@pytest.mark.parametrize("most", [1, 2, 7])
def test_a_short_send_goes_on_at_the_first_unsent(io: Udp, inject: ctypes.CDLL, most: int) -> None:
    io.use(udp())
    inject.inject_short(most)
    with udp() as peer:
        sent = payloads(50)
        assert io.send([Datagram(data, name_of(peer)) for data in sent]) == DONE
        assert all_of(peer, 50) == sent
        assert io.counters()["out_short"] == (50 + most - 1) // most - 1
        assert nothing_waits(peer)


def test_a_blocked_socket_is_reported_and_the_rest_sent_later(io: Udp, inject: ctypes.CDLL) -> None:
    io.use(udp())
    with udp() as peer:
        sent = payloads(20)
        items = [Datagram(data, name_of(peer)) for data in sent]
        inject.inject_short(3)
        inject.inject_send(errno.EAGAIN, 2, 2)  # two calls of three datagrams get through first
        assert io.send(items) == BLOCKED
        assert all_of(peer, 6) == sent[:6]
        assert nothing_waits(peer)
        assert io.send(items) == BLOCKED
        peer.settimeout(10)
        assert io.send(items) == DONE
        assert all_of(peer, 14) == sent[6:]
        assert io.counters()["out_blocked"] == 2
        assert io.counters()["out_datagrams"] == 20


def test_what_is_given_up_is_counted_and_the_next_output_starts_afresh(io: Udp, inject: ctypes.CDLL) -> None:
    io.use(udp())
    io.use(udp(), PROBE)
    with udp() as peer:
        sent = payloads(10)
        items = [Datagram(data, name_of(peer), socket=i % 2) for i, data in enumerate(sent)]
        inject.inject_short(1)
        inject.inject_send(errno.EAGAIN, 2, 1)
        assert io.send(items) == BLOCKED
        assert io.give_up(items) == 8
        assert io.counters()["out_drop_jammed"] == 8
        assert io.send(items[:1]) == DONE
        assert all_of(peer, 3) == [sent[0], sent[2], sent[0]]


def test_an_interrupted_call_is_repeated(io: Udp, inject: ctypes.CDLL) -> None:
    io.use(udp())
    with udp() as peer:
        inject.inject_send(errno.EINTR, 0, 5)
        assert io.send([Datagram(b"a", name_of(peer))]) == DONE
        assert peer.recv(10) == b"a"
        assert io.counters()["out_interrupted"] == 5


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
def test_want_of_buffers_is_waited_for(io: Udp, inject: ctypes.CDLL, error: int) -> None:
    io.use(udp())
    with udp() as peer:
        items = [Datagram(b"a", name_of(peer)), Datagram(b"bc", name_of(peer))]
        inject.inject_send(error, 0, 2)
        assert io.send(items) == DONE  # over before the third repetition
        inject.inject_send(error, 0, 4)
        states = [io.send(items), io.send(items)]
        assert STALLED in states
        assert states[-1] == DONE
        assert all_of(peer, 4) == [b"a", b"bc"] * 2
        assert io.counters()["out_no_buffers"] == 6


def test_lasting_want_of_buffers_drops_within_a_bound(io: Udp, inject: ctypes.CDLL) -> None:
    io.use(udp())
    with udp() as peer:
        items = [Datagram(b"%d" % i, name_of(peer)) for i in range(200)]
        inject.inject_send(errno.ENOBUFS, 0, -1)
        before = inject.inject_calls_sent()
        stalls = 0
        while io.send(items) == STALLED:
            stalls += 1
        assert stalls <= 32
        assert inject.inject_calls_sent() - before <= 96 + 200
        assert io.counters()["out_drop_no_buffers"] == 200
        inject.inject_reset()
        assert io.send(items[:1]) == DONE
        assert peer.recv(10) == b"0"


def test_the_error_of_an_earlier_datagram_costs_none(io: Udp, inject: ctypes.CDLL) -> None:
    io.use(udp())
    with udp() as peer:
        inject.inject_send(errno.ECONNREFUSED, 0, 1)
        assert io.send([Datagram(b"a", name_of(peer))]) == DONE
        assert peer.recv(10) == b"a"
        inject.inject_send(errno.ECONNREFUSED, 0, 2)
        assert io.send([Datagram(b"b", name_of(peer)), Datagram(b"cc", name_of(peer))]) == DONE
        assert peer.recv(10) == b"cc"
        counters = io.counters()
        assert (counters["out_late_errors"], counters["out_drop_unreachable"]) == (2, 1)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (errno.EPERM, "out_drop_forbidden"),
        (errno.EACCES, "out_drop_forbidden"),
        (errno.ENETDOWN, "out_drop_unreachable"),
        (errno.EADDRNOTAVAIL, "out_drop_address"),
        (errno.EMSGSIZE, "out_drop_too_big"),
        (errno.EBADF, "out_drop_other"),
    ],
)
def test_each_refusal_has_its_counter(io: Udp, inject: ctypes.CDLL, error: int, name: str) -> None:
    io.use(udp())
    with udp() as peer, udp() as refused:
        inject.inject_refuse(name_of(refused)[1], error)
        to = [name_of(peer), name_of(refused), name_of(peer)]
        assert io.send([Datagram(b"%d" % i, name) for i, name in enumerate(to)]) == DONE
        assert all_of(peer, 2) == [b"0", b"2"]
        assert io.counters()[name] == 1
        assert nothing_waits(refused)


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL])
def test_a_kernel_that_refuses_trains_gets_single_datagrams(io: Udp, inject: ctypes.CDLL, error: int) -> None:
    io.use(udp())
    with udp() as peer:
        sent = payloads(10, 300)
        items = [Datagram(data, name_of(peer)) for data in sent]
        inject.inject_send(error, 0, 1)
        assert io.send(items) == DONE
        assert all_of(peer, 10) == sent
        assert not io.trains
        assert io.send(items) == DONE
        assert all_of(peer, 10) == sent
        counters = io.counters()
        assert (counters["out_train_refused"], counters["out_train_off"], counters["out_datagrams"]) == (1, 1, 20)
        assert "out_trains" not in counters


def test_a_train_too_big_for_one_route_does_not_end_the_others(io: Udp, inject: ctypes.CDLL) -> None:
    io.use(udp())
    with udp() as peer:
        items = [Datagram(data, name_of(peer)) for data in payloads(10, 300)]
        for _ in range(15):
            inject.inject_send(errno.EMSGSIZE, 0, 1)
            assert io.send(items) == DONE
            assert io.trains
            assert len(all_of(peer, 10)) == 10
        inject.inject_send(errno.EMSGSIZE, 0, 1)
        assert io.send(items) == DONE
        assert not io.trains  # so often that it is no single route


# --- what arrives -------------------------------------------------------------------------------------------------


def test_a_batch_arrives_with_source_and_local_address(io: Udp) -> None:
    port = name_of(io.use(udp("0.0.0.0")))[1]
    with udp("127.0.0.20") as one, udp("127.0.0.21") as two:
        one.sendto(b"a", ("127.0.0.5", port))
        two.sendto(b"", ("127.0.0.6", port))
        one.sendto(b"c" * 1421, ("127.0.0.7", port))
        assert io.receive() == 3
        assert io.take() == [
            Datagram(b"a", name_of(one), "127.0.0.5"),
            Datagram(b"", name_of(two), "127.0.0.6"),
            Datagram(b"c" * 1421, name_of(one), "127.0.0.7"),
        ]
        assert io.take() == []
        assert io.receive() == 0


def test_batches_are_bounded_and_can_be_taken_piece_by_piece(inject: ctypes.CDLL) -> None:
    with Udp(inject, batch=8) as io, udp() as sink, udp() as source:
        io.use(sink)
        sent = payloads(20)
        for data in sent:
            source.sendto(data, name_of(sink))
        got = []
        for expected in (8, 8, 4):
            assert io.receive() == expected
            while part := io.take(3):
                assert len(part) <= 3
                got += [item.data for item in part]
        assert got == sent


def test_what_is_longer_than_the_buffer_is_cut_and_counted(io: Udp) -> None:
    sink = io.use(udp())
    with udp() as source:
        source.sendto(b"x" * 60000, name_of(sink))
        source.sendto(b"next", name_of(sink))
        assert io.receive() == 2
        assert [item.data for item in io.take()] == [b"x" * 1600, b"next"]
        assert io.counters()["in_cut"] == 1


def test_source_port_0_is_dropped_and_counted(io: Udp) -> None:
    sink = io.use(udp())
    with udp() as source, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        source.sendto(b"before", name_of(sink))
        raw.sendto(struct.pack("!4H", 0, name_of(sink)[1], 12, 0) + b"evil", ("127.0.0.1", 0))
        source.sendto(b"after", name_of(sink))
        assert io.receive() == 3
        assert [item.data for item in io.take()] == [b"before", b"after"]
        assert io.counters()["in_no_source"] == 1
        assert io.counters()["in_datagrams"] == 2


def test_what_the_kernel_drops_can_be_asked_for(io: Udp, inject: ctypes.CDLL) -> None:
    sink = io.use(udp())
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with udp() as source:
        for _ in range(100):
            source.sendto(b"x" * 1000, name_of(sink))
        dropped = inject.srp_udp_drops(sink.fileno())
        assert 0 < dropped < 100
        while io.receive() > 0:
            io.take()
        assert io.counters()["in_datagrams"] + dropped == 100


def test_a_buffer_that_fills_can_be_seen(io: Udp, inject: ctypes.CDLL) -> None:
    sink = io.use(udp())
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    drops = ctypes.c_uint32()
    assert not inject.srp_udp_look(sink.fileno(), ctypes.byref(drops))
    assert not inject.srp_udp_filtered(sink.fileno())
    with udp() as source:
        sent = 0
        while not inject.srp_udp_look(sink.fileno(), ctypes.byref(drops)):
            source.sendto(b"x" * 1000, name_of(sink))
            sent += 1
        assert sent > 10
        assert drops.value == 0, "seen only when it was too late"
        filters.attach(sink.fileno())
        assert inject.srp_udp_filtered(sink.fileno())
        source.sendto(b"x" * 1000, name_of(sink))
        inject.srp_udp_look(sink.fileno(), ctypes.byref(drops))
        assert drops.value == 1
        filters.detach(sink.fileno())
        assert not inject.srp_udp_filtered(sink.fileno())


def test_trains_are_received_a_few_at_a_time(inject: ctypes.CDLL) -> None:
    """So that what one call brings stays in the processor's cache; single datagrams come in full batches again."""
    with Udp(inject) as sender, Udp(inject, gro=True) as receiver, udp() as source, udp(receive_bytes=1 << 22) as sink:
        sender.use(source)
        receiver.use(sink, gro=True)
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

        def received() -> int:
            messages = receiver.receive()
            while receiver.take():
                pass
            return messages

        for expected in ([20], [4, 4, 4, 4, 4]):  # the first call has not seen any train before
            for _ in range(20):
                assert sender.send([Datagram(data, name_of(sink)) for data in payloads(10, 1000)]) == DONE
            assert [received() for _ in expected] == expected
        for _ in range(30):
            assert sender.send([Datagram(b"single", name_of(sink))]) == DONE
        assert [received(), received()] == [4, 26]


def test_errors_of_receiving_are_looked_past(io: Udp, inject: ctypes.CDLL) -> None:
    sink = io.use(udp())
    with udp() as source:
        source.sendto(b"a", name_of(sink))
        for error in (errno.EINTR, errno.ECONNREFUSED, errno.EHOSTUNREACH):
            inject.inject_receive(error, 1)
            source.sendto(b"a", name_of(sink))
            assert io.receive() >= 1
            io.take()
        assert io.counters()["in_errors"] == 2
        inject.inject_receive(errno.ENOMEM, 1)
        assert io.receive() == -errno.ENOMEM
        inject.inject_receive(errno.ECONNREFUSED, 1000)
        assert io.receive() == -errno.ECONNREFUSED  # not for ever


# --- whatever the kernel does -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_every_datagram_leaves_once_or_is_counted_once(compile_c: Compile, seed: int) -> None:
    program = compile_c("send_property", [HERE / "send_property.c", CEXT / "udp.c"], *SANITIZERS)
    done = subprocess.run([program, str(seed), "2000"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_pass_between_two_threads(compile_c: Compile) -> None:
    program = compile_c("mailbox_stress", [HERE / "mailbox_stress.c"], *SANITIZERS, "-pthread")
    done = subprocess.run([program, "50000"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_global_and_nothing_allocates(compile_c: Compile, tmp_path: Path) -> None:
    """cext/udp.c: no writable data, and no libc function that allocates."""
    compiled = compile_c("udp.o", [CEXT / "udp.c"], "-c")
    symbols = [line.split()[-2:] for line in subprocess.check_output(["nm", compiled], text=True).splitlines()]
    assert [name for kind, name in symbols if kind in "bBdDcC" and name not in ("names.0", "srp_udp_kernel")] == []
    assert {name for kind, name in symbols if kind == "U"} & {"malloc", "calloc", "realloc", "aligned_alloc"} == set()
