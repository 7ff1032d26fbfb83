"""Some 20 000 generated datagrams, judged and read alike by us and by the reference.

compare.py, run as a program, does the same for longer.
"""

import pytest

from srpnode.core import codec
from tests.wire.compare import run
from tests.wire.reference import Reference

SEEDS = (1, 2, 3, 4)
CASES_PER_SEED = 5000


@pytest.mark.parametrize("seed", SEEDS)
def test_same_verdict_and_fields(seed: int) -> None:
    with Reference() as reference:
        verdicts, _ = run(seed, CASES_PER_SEED, reference)
    assert sum(verdicts.values()) == CASES_PER_SEED
    # The generator must reach every verdict, and the accepted and the refused in earnest.
    assert set(verdicts) | {"deep"} == set(codec.VERDICTS)
    assert CASES_PER_SEED * 0.3 < verdicts["ok"] < CASES_PER_SEED * 0.6
