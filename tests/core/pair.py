"""Two nodes connected back to back, each the other's indexed peer, over a network that neither loses nor delays."""

from __future__ import annotations

from typing import Any

from srpnode.core import codec
from tests.core import inside
from tests.core.world import Peer, Sent, World, named, number


class Pair:
    """`one` and `two`, and every datagram that went between them."""

    def __init__(self, **settings: Any) -> None:
        self.at = [Peer(f"203.0.113.{i + 5}", 3511, peer_id=named(f"node {i}"), alive=False) for i in range(2)]
        self.worlds = [
            World(
                siblings=(self.at[1 - i],),
                peer_id=self.at[i].peer_id,
                address=number(self.at[i].address),
                seed=bytes([i + 1]) * 32,
                **settings,
            )
            for i in range(2)
        ]
        self.one, self.two = self.worlds
        self.traffic: list[Sent] = []

    def advance(self, seconds: float, step: float = 0.02) -> None:
        """Lets time pass for both."""
        for _ in range(round(seconds / step)):
            queue: list[tuple[int, Sent]] = []
            for i, world in enumerate(self.worlds):
                queue += [(i, item) for item in world.advance(step)]
            while queue:
                i, item = queue.pop(0)
                if item.to != self.at[1 - i].endpoint:
                    continue
                self.traffic.append(item)
                sent = self.worlds[1 - i].send(self.at[i], item.data, local=item.to[0])
                queue += [(1 - i, answer) for answer in sent]

    def put(self, world: World, texts: list[bytes], cluster: bytes | None = None) -> None:
        """Packets get into one node's cache, and into nobody else's: with hops enough not to be relayed."""
        source = Peer("198.51.100.250")
        world.prove(source)
        for text in texts:
            world.send(source, source.publish(text, hops=16, cluster_id=cluster))

    def caches(self) -> list[set[bytes]]:
        return [set(inside.packets(world.node)) for world in self.worlds]

    def summaries(self) -> list[str]:
        """What each says of its cache, brought up to date."""
        return [str(world.node.gauges()["summary"]) for world in self.worlds]

    def equal(self) -> bool:
        """Whether both hold the same packets, and say so."""
        one, two = self.caches()
        expected = codec.summarize(one)[0].hex()
        return one == two and self.summaries() == [expected, expected]
