"""The whole core under sequences that nobody would think of; fuzz/core.py says what must hold after each step."""

from __future__ import annotations

import pytest

from fuzz import core

SEEDS = 40
STEPS = 400


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_any_sequence(first: int) -> None:
    """Fixed seeds; `python -m fuzz.core SEED 1000 2000` tries others."""
    for seed in range(first, first + 10):
        core.run(seed, STEPS)


def test_sequences_reach_everything() -> None:
    """The sequences are worth their time: they make the node do, and refuse, nearly all that it can."""
    total: dict[str, int] = {}
    for seed in range(100, 140):
        for name, value in core.run(seed, 400).items():
            total[name] = total.get(name, 0) + value
    idle = {name for name, value in total.items() if value == 0}
    assert len(idle) < 0.25 * len(total), idle
    for name in core.TYPES:
        assert total[f"in_{name}"] > 20, name
    for name in ("proofs", "introductions", "joins_relayed", "cache_ejected", "cache_expired", "sync_packets", "unparked"):
        assert total[name] > 0, name


def test_same_seed_same_run() -> None:
    """A failure can be run again: nothing but the seed decides."""
    assert core.run(7, 300) == core.run(7, 300)
    assert core.run(7, 300) != core.run(8, 300)
