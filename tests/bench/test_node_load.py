"""The load drives a real node: its endpoints become known peers, each workload is answered as its row assumes."""

from pathlib import Path

import pytest

from bench import servers
from bench.rows import FILL_16_MB, INTRODUCTIONS
from tests.bench.sending import COUNT, ENDPOINTS, send


@pytest.mark.parametrize(
    ("workload", "options", "fanout"),
    [
        ("ping", [], 1),
        ("publish", [], 3),
        ("publish", ["--fill", str(FILL_16_MB)], 6),  # each insertion ejects one that leaves for 3 peers, too
        ("stream", ["--train", "20"], 1),
        ("join", [], INTRODUCTIONS),
        ("duplicate", [], 0),
        ("garbage", [], 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_node_answers_as_the_rows_assume(
    built: dict[str, Path], workload: str, options: list[str], fanout: int
) -> None:
    sample, _ = send(built, servers.node(), workload, *options)
    assert sample.raw["known"] == ENDPOINTS
    assert sample.raw["sent"] == COUNT
    answers = sample.raw["answers"] + sample.raw["own_drops"]
    if workload == "duplicate":
        assert sample.raw["types"][5] == 3 * 32  # 32 different packets, each relayed once
    else:
        assert answers == pytest.approx(fanout * COUNT, rel=0.01)
