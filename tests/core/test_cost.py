"""What a datagram costs does not grow with the peers or the cached packets: instructions counted, not time."""

from __future__ import annotations

import os

import pytest

from tests.core.cost import Size, measure

KINDS = {"ping", "publish", "duplicate", "stream", "question", "answer", "stranger"}
# Instructions that each kind may cost at any size, about half as much again as it does.
MOST = {
    "ping": 10_500,
    "publish": 7_000,
    "duplicate": 2_500,
    "stream": 2_500,
    "question": 7_000,
    "answer": 6_500,
    "stranger": 12_500,
}


def costs(size: Size, kinds: set[str] = KINDS) -> dict[str, float]:
    try:
        return measure(size, kinds, samples=1)
    except OSError as error:
        pytest.skip(f"COSTS ARE NOT CHECKED: {error}")


@pytest.mark.skipif(os.environ.get("SRPNODE_SANITIZE") == "1", reason="the sanitizer's own instructions would be counted")
def test_costs_are_flat() -> None:
    """One peer and nothing cached, a thousand peers, a hundred thousand and a full cache: the same but for a tenth. (From a single
    peer a packet goes to nobody.)"""
    one, thousand, all_full = costs(Size(1, 0), KINDS - {"publish"}), costs(Size(1000, 0)), costs(Size(100_000, 13_000))
    assert set(all_full) == KINDS
    for kind, cost in all_full.items():
        assert cost <= MOST[kind], (kind, cost)
        assert cost > 500, (kind, cost, "nothing was done")
        for other in (one, thousand):
            if kind in other:
                assert cost <= 1.1 * other[kind] + 200, (kind, cost, other[kind])


@pytest.mark.skipif(os.environ.get("SRPNODE_SANITIZE") == "1", reason="the sanitizer's own instructions would be counted")
def test_ejection_is_flat() -> None:
    """A full cache: each insertion ejects another packet and multicasts it. Not twice the cost, whatever the cache holds."""
    small, large = costs(Size(1000, 500, 400_000), {"publish"}), costs(Size(100_000, 16_000), {"publish"})
    assert large["publish"] <= 1.1 * small["publish"] + 200
    assert large["publish"] <= 2 * MOST["publish"]
