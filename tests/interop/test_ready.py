"""An application that lists nothing but the two identities of one node becomes ready."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.interop import datagram
from tests.interop.conftest import Clients
from tests.interop.reference import ADDR_RESTRICTED, ENDPOINT_RESTRICTED, PORT_RESTRICTED, UNRESTRICTED, Client
from tests.interop.sut import Introducer

ATTEMPTS = 5  # a client's own timers, of half a second and more, may run out on a busy machine


def ready_at_once(node: Introducer, clients: Clients, **options: str) -> Client:
    """A client that became ready in its first reflection: every answer came in time."""
    for _ in range(ATTEMPTS):
        client = clients(node, **options)
        client.ready()
        statuses = Counter(e["status"] for e in client.events("connecting"))
        if statuses["Timeout"] == 0 and statuses["Discover External Port"] == statuses["Discover NAT"] == 1:
            return client
        client.close()
    raise AssertionError(f"each of {ATTEMPTS} clients had to repeat its reflection: {statuses}")


@pytest.mark.parametrize("kind", ["api", "peer"])
@pytest.mark.parametrize(
    ("nat", "nat_type"),
    [
        ("none", UNRESTRICTED),
        ("addr", ADDR_RESTRICTED),
        ("port", PORT_RESTRICTED),
        ("symmetric", ENDPOINT_RESTRICTED),
    ],
)
def test_ready_with_the_right_nat_type(node: Introducer, clients: Clients, kind: str, nat: str, nat_type: int) -> None:
    client = ready_at_once(node, clients, kind=kind, nat=nat)
    info = client.info()
    assert info["natType"] == nat_type
    assert info["address"] == client.address
    if nat != "symmetric":
        assert info["port"] == client.port
    # A full reflection: the probe socket heard from a main port, then from as many probe ports as the NAT lets in.
    probed = [f"{e['address']}:{e['port']}" for e in client.events("probe")]
    assert probed[0] in {entry.endpoint for entry in node.entries}
    wanted = {"none": 2, "addr": 1, "port": 0, "symmetric": 0}[nat]
    assert len(probed) == 1 + wanted
    assert set(probed[1:]) <= {f"{entry.address}:{entry.probe_port}" for entry in node.entries}
    assert len(set(probed[1:])) == wanted


def test_client_notices_nothing_of_the_proof(node: Introducer, clients: Clients) -> None:
    """The node's own pings to an endpoint that it has not proven yet neither delay nor disturb a reflection."""
    client = ready_at_once(node, clients)
    client.join("subcluster")
    for entry in node.entries:
        client.wait_connected(entry)
    assert len(client.events("ready")) == 1
    # The probe socket is for pongs alone: a ping there would end the wait for the external port.
    assert {e["type"] for e in client.log(socket="probe")} == {datagram.PONG}
    # All that came is from the node, by the ports that it says it has.
    endpoints = {entry.endpoint for entry in node.entries}
    assert {e["from"] for e in client.log(socket="main")} == endpoints
