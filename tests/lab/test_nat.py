"""The routers behave as their kinds say, seen with plain UDP sockets from both sides."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from .delay import Delay
from .namespaces import Namespace
from .nat import NAT_TYPE, NatKind, NatOptions, loss_rules, rules
from .world import INTRODUCERS, Host, Site, World

pytestmark = pytest.mark.usefixtures("laboratory")

SILENCE_S = 0.15
ARRIVAL_S = 5.0
ROUTED = [kind for kind in NatKind if kind is not NatKind.NONE]
ONE, TWO = INTRODUCERS


@contextmanager
def udp(namespace: Namespace, address: str = "0.0.0.0", port: int = 0) -> Iterator[socket.socket]:
    """A bound UDP socket inside a namespace."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((address, port))
        yield made


def arrives(receiver: socket.socket, within_s: float = SILENCE_S) -> tuple[bytes, tuple[str, int]] | None:
    """The next datagram and its source, or None after some silence."""
    receiver.settimeout(within_s)
    try:
        return receiver.recvfrom(100)
    except TimeoutError:
        return None


def observed(client: socket.socket, server: socket.socket) -> tuple[str, int]:
    """The endpoint under which the client's datagrams reach the server."""
    client.sendto(b"hello", server.getsockname())
    found = arrives(server, ARRIVAL_S)
    assert found is not None
    return found[1]


def classify(world: World, host: Host) -> int:
    """The NAT type, by its definition: the mapping from two destinations, the filter from three sources."""
    with ExitStack() as stack:
        known = stack.enter_context(udp(world.introducers, ONE, 4100))
        known_address = stack.enter_context(udp(world.introducers, ONE, 4101))
        stranger = stack.enter_context(udp(world.introducers, TWO, 4100))
        client = stack.enter_context(udp(host.namespace))
        seen = observed(client, known)
        passed = []
        for sender in (known, known_address, stranger):
            sender.sendto(b"in", seen)
            passed.append(arrives(client) is not None)
        assert passed[0], "the one that was contacted can always answer"
        same_mapping = observed(client, stranger) == seen
        return 0b1 | same_mapping << 1 | 0b100 | passed[1] << 3 | passed[2] << 4


@pytest.mark.parametrize("kind", list(NatKind))
def test_kind_maps_and_filters_as_its_type_says(kind: NatKind) -> None:
    with World() as world:
        assert classify(world, world.site("s", kind).hosts[0]) == NAT_TYPE[kind]


@pytest.mark.parametrize("kind", ROUTED)
def test_router_rewrites_to_its_public_address_and_answers_come_back(kind: NatKind) -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        site = world.site("s", kind)
        with udp(site.hosts[0].namespace) as client:
            seen = observed(client, server)
            assert seen[0] == site.address
            server.sendto(b"answer", seen)
            assert arrives(client, ARRIVAL_S) == (b"answer", (ONE, 4000))


@pytest.mark.parametrize("kind", [kind for kind in ROUTED if kind is not NatKind.SYMMETRIC])
def test_unsolicited_datagrams_do_not_cost_a_port(kind: NatKind) -> None:
    """A punch from inside keeps its port although the other side's datagram came first and was dropped."""
    with World() as world, udp(world.introducers, ONE, 4000) as server, udp(world.introducers, TWO, 4000) as peer:
        site = world.site("s", kind)
        with udp(site.hosts[0].namespace) as client:
            seen = observed(client, server)
            peer.sendto(b"too early", seen)
            arrives(client)
            assert observed(client, peer) == seen


def test_symmetric_ports_spread_over_the_whole_range() -> None:
    """Hole punching by the birthday paradox is as likely as it is computed only when ports are drawn from all."""
    with World() as world, ExitStack() as stack:
        site = world.site("s", NatKind.SYMMETRIC)
        client = stack.enter_context(udp(site.hosts[0].namespace))
        ports = []
        for port in range(5000, 5064):
            server = stack.enter_context(udp(world.introducers, ONE, port))
            ports.append(observed(client, server)[1])
        assert len(set(ports)) == len(ports)
        # Each quarter stays empty with a chance of 0.75 ** 64, that is 1 in 100 million.
        assert {(port - 1024) * 4 // (65536 - 1024) for port in ports} == {0, 1, 2, 3}


def neighbours(site: Site, server: socket.socket) -> bool:
    """Whether a host reaches the one beside it under that one's public endpoint."""
    with udp(site.hosts[0].namespace) as one, udp(site.hosts[1].namespace) as other:
        own, seen = observed(one, server), observed(other, server)
        assert own[0] == seen[0] == site.address
        one.sendto(b"neighbour", seen)
        found = arrives(other)
        if found is None:
            return False
        assert found == (b"neighbour", own)
        other.sendto(b"back", own)
        assert arrives(one, ARRIVAL_S) == (b"back", seen)
        return True


@pytest.mark.parametrize("kind", [NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED, NatKind.PORT_RESTRICTED])
def test_hairpin(kind: NatKind) -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        assert neighbours(world.site("s", kind, NatOptions(hairpin=True), hosts=2), server)


@pytest.mark.parametrize("kind", [kind for kind in ROUTED if kind is not NatKind.DOUBLE])
def test_no_hairpin_unless_asked(kind: NatKind) -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        assert not neighbours(world.site("s", kind, hosts=2), server)


@pytest.mark.parametrize("kind", ROUTED)
def test_mappings_end_after_their_timeout(kind: NatKind) -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        short = world.site("s", kind, NatOptions(unreplied_timeout_s=1, replied_timeout_s=1))
        long = world.site("l", kind)
        with udp(short.hosts[0].namespace) as client, udp(long.hosts[0].namespace) as other:
            ends = [(observed(each, server), each) for each in (client, other)]
            for seen, each in ends:
                server.sendto(b"at once", seen)
                assert arrives(each, ARRIVAL_S) is not None
            time.sleep(2.5)  # conntrack's clock is coarse
            for seen, _ in ends:
                server.sendto(b"later", seen)
            assert arrives(client) is None
            assert arrives(other, ARRIVAL_S) is not None


@pytest.mark.parametrize("kind", [NatKind.FULL_CONE, NatKind.PORT_RESTRICTED])  # with and without a map of our own
def test_traffic_holds_short_mappings_open(kind: NatKind) -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        site = world.site("s", kind, NatOptions(unreplied_timeout_s=2, replied_timeout_s=2))
        with udp(site.hosts[0].namespace) as client:
            seen = observed(client, server)
            for _ in range(8):  # twice as long as a mapping lives
                time.sleep(0.5)
                assert observed(client, server) == seen
            server.sendto(b"still there", seen)
            assert arrives(client, ARRIVAL_S) is not None


def test_loss_hits_about_that_share_of_what_crosses_the_internet() -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        site = world.site("s", NatKind.PORT_RESTRICTED)
        world.lose(300)
        with udp(site.hosts[0].namespace) as client:
            got = 0
            for _ in range(10):
                for _ in range(100):  # no more than a receive buffer holds
                    client.sendto(b"x", (ONE, 4000))
                while arrives(server) is not None:
                    got += 1
        assert 600 < got < 800  # six standard deviations around 700
        world.lose(0)
        with udp(site.hosts[0].namespace) as client:
            assert observed(client, server)[0] == site.address


def test_delay_holds_back_every_frame_and_loses_none() -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        site = world.site("s", NatKind.PORT_RESTRICTED, delay=Delay(20, 10))
        with udp(site.hosts[0].namespace) as client:
            observed(client, server)  # with ARP on the way
            for number in range(50):
                client.sendto(bytes([number]), (ONE, 4000))
            numbers = []
            for _ in range(50):
                found = arrives(server, ARRIVAL_S)
                assert found is not None
                numbers.append(found[0][0])
            assert sorted(numbers) == list(range(50))
            assert numbers != sorted(numbers)  # jitter lets frames overtake each other
            began = time.monotonic()
            server.sendto(b"back", observed(client, server))
            assert arrives(client, ARRIVAL_S) is not None
            assert time.monotonic() - began >= 0.04


@pytest.mark.parametrize("kind", list(NatKind))
def test_address_change_in_mid_session(kind: NatKind) -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        site = world.site("s", kind)
        with udp(site.hosts[0].namespace) as client:
            old = observed(client, server)
            new = site.change_address()
            assert new != old[0]
            seen = observed(client, server)
            assert seen[0] == new
            server.sendto(b"to the old one", old)
            assert arrives(client) is None
            server.sendto(b"to the new one", seen)
            assert arrives(client, ARRIVAL_S) is not None
        assert classify(world, site.hosts[0]) == NAT_TYPE[kind]


@pytest.mark.parametrize("kind", ROUTED)
def test_forgotten_mappings_do_not_let_anything_in(kind: NatKind) -> None:
    with World() as world, udp(world.introducers, ONE, 4000) as server:
        site = world.site("s", kind)
        with udp(site.hosts[0].namespace) as client:
            seen = observed(client, server)
            site.forget()
            server.sendto(b"answer", seen)
            assert arrives(client) is None


def test_impossible_routers_are_refused() -> None:
    for kind in (NatKind.NONE, NatKind.DOUBLE):
        with pytest.raises(ValueError, match="not one router"):
            rules(kind, ONE, NatOptions())
    with pytest.raises(ValueError, match="symmetric"):
        rules(NatKind.SYMMETRIC, ONE, NatOptions(hairpin=True))
    with pytest.raises(ValueError, match="loss"):
        loss_rules(1001)
