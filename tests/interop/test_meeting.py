"""Peers of one cluster that know only the node are introduced to each other."""

from __future__ import annotations

import itertools

import pytest

from tests.interop import datagram
from tests.interop.conftest import Clients, StartNode
from tests.interop.reference import Client
from tests.interop.sut import Introducer
from tests.interop.waiting import eventually, settled

KEEP_ALIVE_MS = 5000
CLUSTERS = 5
MEMBERS = 10


def introduced(client: Client, node: Introducer, since: int = 0) -> set[str]:
    """peerIds that the node introduced to this client, since that length of its log."""
    ours = {entry.endpoint for entry in node.entries}
    intros = client.log(datagram.INTRO, since=since)
    return {e["message"]["requesterPeerId"] for e in intros if e["from"] in ours}


def test_two_clients_of_one_subcluster_meet(node: Introducer, clients: Clients) -> None:
    a = clients(node)
    b = clients(node)
    for client in (a, b):
        client.ready()
        client.join("subcluster")
    for client, other in ((a, b), (b, a)):
        client.wait_join(other)
        peer = client.wait_connected(other)
        assert (peer["address"], peer["port"]) == (other.address, other.port)
        assert peer["proxy"] is None
    # Connected means that they talk to each other, not through the node.
    data = b"straight to you"
    b.listen("subcluster", "hello")
    a.stream("subcluster", "hello", data, to=b)
    b.wait_message(data)
    event = b.wait("stream")
    assert (event["address"], event["port"]) == (a.address, a.port)


# The reference picks three of any cluster at random before it thinks of the joiner's own.
@pytest.mark.reference_fails("introduces strangers although members of the cluster are there")
def test_fifty_clients_in_five_clusters(start_node: StartNode, clients: Clients) -> None:
    node = start_node(keep_alive_s=2.5)
    options = {"keep_alive_ms": KEEP_ALIVE_MS}
    members = {
        f"cluster-{i}": [clients(node, cluster=f"cluster-{i}", **options) for _ in range(MEMBERS)] for i in range(CLUSTERS)
    }
    everybody = [client for cluster in members.values() for client in cluster]
    for client in everybody:
        client.join("subcluster")
    for client in everybody:
        client.ready()

    def strangers_yet() -> list[str]:
        return [
            f"{a}-{b}"
            for cluster in members.values()
            for a, b in itertools.permutations(cluster, 2)
            if b.peer_id not in a.met()
        ]

    eventually(lambda: not strangers_yet(), "every pair of a cluster to meet", deadline_s=120, nap_s=0.5)

    # Members of the joiner's cluster take all the places there are.
    late = clients(node, cluster="cluster-0", **options)
    late.ready()
    own = {client.peer_id for client in members["cluster-0"]}
    late.join("subcluster")
    late.wait("join")
    told = settled(lambda: introduced(late, node), quiet_s=1.0)
    assert told
    assert told <= own, "a stranger took a place that a member left unused"
    # With no member there at all, the places are free for strangers, but not for more than there are places.
    alone = clients(node, cluster="nobody else", **options)
    alone.ready()
    alone.join("subcluster")
    told = set(eventually(lambda: introduced(alone, node), "strangers for the free places"))
    # With one other member, that one is among those introduced.
    second = clients(node, cluster="nobody else", **options)
    second.ready()
    second.join("subcluster")
    second.wait_join(alone)
    told = settled(lambda: introduced(second, node), quiet_s=1.0)
    assert alone.peer_id in told
    assert told - {alone.peer_id}, "strangers for the places left"


def test_two_behind_symmetric_nats_talk_through_the_node(node: Introducer, clients: Clients) -> None:
    """No hole punching can connect them: the introduction makes the node their proxy."""
    a = clients(node, nat="symmetric")
    b = clients(node, nat="symmetric")
    for client in (a, b):  # who is introduced before it has joined hears nothing of it, and not again for a minute
        client.join("subcluster")
    for client in (a, b):
        client.ready()
    a.wait_join(b)
    b.wait_join(a)
    node_ids = {entry.peer_id for entry in node.entries}
    assert a.peer(b)["proxy"] in node_ids
    assert b.peer(a)["proxy"] in node_ids
    for sender, receiver in ((a, b), (b, a)):
        receiver.listen("subcluster", "hello")
        for data in (f"from {sender} to {receiver}".encode(), bytes(range(256)) * 40):
            sender.stream("subcluster", "hello", data, to=receiver)
            receiver.wait_message(data)
        endpoints = {(e["address"], e["port"]) for e in receiver.events("stream")}
        assert endpoints <= {(entry.address, entry.port) for entry in node.entries}


# The reference passes in its own way: its introducers introduce on relayed joins, to whatever address those claim.
@pytest.mark.parametrize("order", ["together", "one-after-the-other"])
def test_two_nodes_introduce_by_rendezvous(start_node: StartNode, clients: Clients, order: str) -> None:
    """A client of one node and a client of another, of one cluster: each knows only its own node."""
    first = start_node()
    second = start_node(peers=tuple(first.entries))
    first.set_peers(second.entries)
    made = []
    for node in (first, second):
        client = clients(node)
        client.join("subcluster")
        client.listen("subcluster", "hello")
        if order == "one-after-the-other":  # then only the second one's join leads to the meeting
            client.ready()
            settled(client.log_length, quiet_s=1.5)
        made.append(client)
    a, b = made
    for client, other in ((a, b), (b, a)):
        client.wait_join(other)
        peer = client.wait_connected(other)
        assert (peer["address"], peer["port"], peer["proxy"]) == (other.address, other.port, None)
        intros = [e["message"] for e in client.log(datagram.INTRO) if e["message"]["requesterPeerId"] == other.peer_id]
        assert intros
        assert all(message["isRendezvous"] for message in intros)
    for sender, receiver in ((a, b), (b, a)):
        data = f"from {sender}".encode()
        sender.emit("subcluster", "hello", data)
        receiver.wait_message(data)


def test_clients_meet_whatever_their_nat(start_node: StartNode, clients: Clients) -> None:
    """All kinds of NAT in one subcluster: every pair meets, on both sides."""
    node = start_node(keep_alive_s=2.5)
    kinds = ["none", "addr", "port", "symmetric"]
    made = [clients(node, nat=kind, name=kind, keep_alive_ms=KEEP_ALIVE_MS) for kind in kinds]
    for client in made:
        client.join("subcluster")
    for client in made:
        client.ready()
    for a, b in itertools.permutations(made, 2):
        a.wait_join(b)
