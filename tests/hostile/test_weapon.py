"""The node cannot be aimed at anybody: what arrives at a victim, measured with raw sockets beside it (see weapon.py)."""

from __future__ import annotations

import os

import pytest

from srpnode.schema import Limits
from tests.hostile import weapon
from tests.hostile.weapon import IN_ITS_NAME, NAMING, RELAYED, SPOOFED, Result, Scene

PACKETS = 20
BYTES_BACK = 3
FROM_PEERS = 1.0  # packets at a victim for each packet spent

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="forging a source address needs a raw socket")


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    with Scene(reference=False, clients=4) as scene:
        honest = scene.holders()
        measured = weapon.run(scene, SPOOFED + NAMING + RELAYED, PACKETS)
        measured += weapon.run_on_peers(scene, IN_ITS_NAME, PACKETS)
        assert scene.holders() == honest, "a peerId has another endpoint than before"
    return {result.vector: result for result in measured}


@pytest.mark.parametrize("vector", SPOOFED)
def test_at_most_three_bytes_for_a_byte_go_back(results: dict[str, Result], vector: weapon.Vector) -> None:
    """To the source address that a datagram claims; and nobody else is set upon it."""
    result = results[vector.__name__]
    assert result.node_bytes <= BYTES_BACK * result.sent_bytes, result
    assert result.peer_packets == 0, result


@pytest.mark.parametrize("vector", NAMING + RELAYED)
def test_nothing_is_sent_to_an_endpoint_that_a_message_names(results: dict[str, Result], vector: weapon.Vector) -> None:
    result = results[vector.__name__]
    assert result.node_packets == 0, result


@pytest.mark.parametrize("vector", NAMING + RELAYED)
def test_no_more_is_sent_by_others_than_the_attacker_spends(results: dict[str, Result], vector: weapon.Vector) -> None:
    result = results[vector.__name__]
    assert result.peer_packets <= FROM_PEERS * result.sent_packets, result


@pytest.mark.parametrize("vector", IN_ITS_NAME)
def test_what_is_forged_in_a_peers_name_brings_it_no_more_than_it_may_get(results: dict[str, Result], vector: weapon.Vector) -> None:
    """A packet for a packet; a summary leads to more, within the shares that a peer has of each introducer in a minute."""
    result = results[vector.__name__]
    sync = "summary" in vector.__name__
    share = 2 * 2 * (Limits().sync_per_minute + Limits().sync_summaries_per_minute) if sync else 0  # a minute may end meanwhile
    assert result.node_packets <= max(result.sent_packets, share), result
    assert result.peer_packets <= FROM_PEERS * result.sent_packets, result


def test_the_attack_itself_works(results: dict[str, Result]) -> None:
    """Else nothing above means anything: pings in a victim's name are answered, a victim that is named gets joins."""
    assert results["spoofed_small_ping"].node_packets == PACKETS
    assert results["relayed_join_with_the_victim_as_rendezvous"].peer_packets > 0
    assert results["query_in_its_name"].node_packets == PACKETS
    assert results["empty_summary_in_its_name"].node_packets > 0
