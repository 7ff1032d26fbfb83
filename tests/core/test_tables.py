"""The C files of the core's tables on their own: under the sanitizers against plain models."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.c_files import replay, write_inputs

TARGETS = {"table": [], "peers": ["peers", "digest"], "store": ["store", "peers", "digest"]}
# target: inputs, bytes of the longest. Together about five seconds of running.
AMOUNT = {"table": (3000, 400), "peers": (400, 3000), "store": (150, 2400)}


def sequences(target: str) -> Iterator[bytes]:
    """Random sequences of operations: short and long, of few and of many different values."""
    count, longest = AMOUNT[target]
    rng = random.Random(target)
    for i in range(count):
        length = rng.randrange(1, longest)
        few = rng.sample(range(256), rng.choice([2, 5, 20, 256]))
        yield bytes([i % 256]) + bytes(rng.choices(few, k=length))


@pytest.mark.parametrize("target", TARGETS)
def test_agrees_with_a_plain_model(target: str, tmp_path: Path) -> None:
    """Every operation checked by fuzz/check.h and against a search over everything, under ASan and UBSan."""
    count = write_inputs(tmp_path / "inputs", sequences(target))
    assert replay(target, TARGETS[target], tmp_path / "inputs", tmp_path) == count
