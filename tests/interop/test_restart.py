"""The node, or a client, goes away and comes back: they find each other without anybody else's doing."""

from __future__ import annotations

import pytest

from tests.interop import datagram
from tests.interop.conftest import Clients, NewRaw, StartNode
from tests.interop.experiment import REFERENCE
from tests.interop.reference import Client
from tests.interop.sut import free_port
from tests.interop.waiting import eventually

SUBCLUSTER = "subcluster"
EVENT = "hello"
KEEP_ALIVE_S = 2.5
CLIENT_KEEP_ALIVE_MS = 4000


def stream_arrives(sender: Client, receiver: Client, label: str) -> None:
    """Streams until one arrives: what is sent to a node that does not know the receiver yet is lost."""
    count = 0

    def attempt() -> bool:
        nonlocal count
        count += 1
        sender.stream(SUBCLUSTER, EVENT, f"{label} {sender} {count}".encode(), to=receiver)
        return len(receiver.events("stream")) > before

    before = len(receiver.events("stream"))
    eventually(attempt, f"a stream from {sender} to {receiver}, {label}", nap_s=0.5)


def test_a_restarted_node_is_found_again(start_node: StartNode, clients: Clients, raw: NewRaw) -> None:
    node = start_node(keep_alive_s=KEEP_ALIVE_S)
    a = clients(node, keep_alive_ms=CLIENT_KEEP_ALIVE_MS)
    proxied = [clients(node, nat="symmetric", keep_alive_ms=CLIENT_KEEP_ALIVE_MS) for _ in range(2)]
    for client in (a, *proxied):
        client.ready()
        client.join(SUBCLUSTER)
        client.listen(SUBCLUSTER, EVENT)
    for client, other in ((proxied[0], proxied[1]), (proxied[1], proxied[0])):
        client.wait_join(other)
    stream_arrives(proxied[0], proxied[1], "before")
    a.emit(SUBCLUSTER, EVENT, b"before")
    counter = raw()
    counter.wait_cache_size(1, *node.entries)

    node.restart()

    # The proxy works again, in both directions.
    stream_arrives(proxied[0], proxied[1], "after")
    stream_arrives(proxied[1], proxied[0], "after")
    # It introduces those who were there before to those who come now.
    late = clients(node, keep_alive_ms=CLIENT_KEEP_ALIVE_MS)
    late.ready()
    late.join(SUBCLUSTER)
    for client in (a, *proxied):
        late.wait_join(client)
        client.wait_join(late)
    # It stores what is published now, and gets back what its peers kept.
    a.emit(SUBCLUSTER, EVENT, b"after")
    counter.wait_cache_size(2, *node.entries)


@pytest.mark.parametrize("change", ["nothing", "port", "address"])
def test_a_restarted_client_is_served_again(start_node: StartNode, clients: Clients, change: str) -> None:
    """Same identity and cache; on its old port, on another one, or at another address."""
    node = start_node(keep_alive_s=KEEP_ALIVE_S)
    a = clients(node, keep_alive_ms=CLIENT_KEEP_ALIVE_MS)
    b = clients(node, keep_alive_ms=CLIENT_KEEP_ALIVE_MS)
    for client in (a, b):
        client.join(SUBCLUSTER)
        client.listen(SUBCLUSTER, EVENT)
    a.wait_join(b)
    b.wait_join(a)
    b.emit(SUBCLUSTER, EVENT, b"before")
    a.wait_message(b"before")
    a.close()
    address = clients.net.host() if change == "address" else a.address
    port = free_port(a.address) if change == "port" else a.port
    # A reference client throws on a heartbeat that comes before it knows its NAT type, and b sends some.
    clients.forgiven.append("Error: expected 'natType' to be of type 'number', got 'null'")
    again = clients(node, address=address, port=port, peer_id=a.peer_id, resume=a.name, keep_alive_ms=CLIENT_KEEP_ALIVE_MS)
    again.ready()
    if not REFERENCE:  # the node knows better
        ours = {entry.endpoint for entry in node.entries}
        pings = [e["message"] for e in again.log(datagram.PING) if e["from"] in ours]
        assert all(ping.get("isReflection") for ping in pings), pings
    again.join(SUBCLUSTER)
    again.listen(SUBCLUSTER, EVENT)
    again.wait_join(b)
    eventually(lambda: (b.peer(again)["address"], b.peer(again)["port"]) == (address, port), "b to know where a is now")
    for sender, receiver in ((again, b), (b, again)):
        stream_arrives(sender, receiver, "after")
        data = f"event of {sender}".encode()
        sender.emit(SUBCLUSTER, EVENT, data)
        receiver.wait_message(data)
