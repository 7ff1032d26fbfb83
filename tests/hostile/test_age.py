"""A node that has lived through many generations of peers and turned its cache over many times works as fast as a young one."""

from __future__ import annotations

import os

import pytest

from tests.core import inside
from tests.core.world import MAIN, Peer, World, named, number

GENERATION_S, PEERS, RATE = 12, 60, 40  # publishes a second
SUBCLUSTERS = [named(f"sub {i}") for i in range(6)]
SAMPLES = 10


class Churn:
    """Two generations are there at a time; those before have fallen silent."""

    def __init__(self) -> None:
        self.world = World(peers=4096, cache_max_bytes=200_000, gate_entries=65_536, meter_entries=16_384, unproven_per_second=0)
        self.living: list[list[Peer]] = []
        self.born = self.published = 0

    def generation(self) -> None:
        born = []
        for _ in range(PEERS):
            self.born += 1
            address = f"198.{18 + self.born // 62_500}.{self.born // 250 % 250}.{self.born % 250 + 1}"
            born.append(self.world.connect(Peer(address, cluster=named("cluster"), subcluster=SUBCLUSTERS[self.born % 6])))
            self.world.send(born[-1], born[-1].join())
        self.living = [*self.living, born][-2:]
        for peers in self.world.peers.values():
            peers.received.clear()

    def packet(self) -> tuple[bytes, int, int, int]:
        self.published += 1
        peer = self.living[self.published % len(self.living)][self.published // 2 % PEERS]
        data = peer.publish(b"%08d" % self.published + bytes(200), subcluster_id=peer.subcluster)
        return data, number(peer.address), peer.port, MAIN

    def live(self, seconds: float) -> None:
        for i in range(round(seconds)):
            if i % GENERATION_S == 0:
                self.generation()
            for _ in range(10):
                batch = [self.packet() for _ in range(RATE // 10)]
                inside.receive_batch(self.world.node, batch, self.world.mono_us, self.world.wall_ms)
                self.world.pass_time(0.1)
                self.world.tick()

    def cost(self) -> float:
        """Instructions for one of the next publishes."""
        world = self.world
        costs = [inside.instructions(world.node, [self.packet()], world.mono_us, world.wall_ms) for _ in range(SAMPLES)]
        return sum(costs) / SAMPLES


@pytest.mark.skipif(os.environ.get("SRPNODE_SANITIZE") == "1", reason="the sanitizer's own instructions would be counted")
def test_a_publish_costs_what_it_cost_before() -> None:
    churn = Churn()
    churn.live(180)  # the tables are as full as they get
    try:
        young = churn.cost()
    except OSError as error:
        pytest.skip(f"COSTS ARE NOT CHECKED: {error}")
    known, ejected = churn.world.node.gauges()["peers"], churn.world.count("cache_ejected")
    assert ejected > 1000, "the cache never filled"
    churn.live(1200)
    assert churn.world.count("cache_ejected") > 40_000
    assert churn.world.node.gauges()["peers"] <= 1.2 * known, "who has left is still known"
    old = churn.cost()
    assert old <= 1.1 * young, (young, old)
    inside.check(churn.world.node)
