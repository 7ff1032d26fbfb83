"""The bench programs build, run and report figures that add up. Nothing here depends on how fast the machine is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import servers
from bench.measure import figure, paired
from bench.rows import ROWS
from tests.bench.sending import COUNT, ENDPOINTS, free_port, send

ROOT = Path(__file__).parents[2]


def test_every_datagram_is_echoed_and_timed(built: dict[str, Path]) -> None:
    sample, log = send(built, servers.bare(built["bare"], "echo"), "ping")
    assert sample.raw["sent"] == sample.raw["answers"] == sample.raw["timed"] == COUNT
    assert sample.raw["answer_bytes"] == sample.raw["sent_bytes"]
    assert 0 < sample.p50_us <= sample.p99_us
    assert 0 < sample.raw["server_cpu_s"] < sample.raw["seconds"]
    counts = json.loads(log)
    assert counts["received"] == counts["sent"] == COUNT
    assert counts["errors"] == 0


@pytest.mark.parametrize("workload", ["publish", "join"])
def test_forwarder_sends_each_datagram_to_k_addresses(built: dict[str, Path], workload: str) -> None:
    port = free_port()
    destinations = ["--to", f"127.1.0.1:{port}", "--spread", str(ENDPOINTS), "--copies", "3"]
    sample, _ = send(built, servers.bare(built["bare"], "fan", *destinations), workload, port=port)
    assert sample.raw["sent"] == COUNT
    assert sample.raw["answers"] == 3 * COUNT
    assert sample.raw["timed"] == COUNT
    assert sample.fanout == 3
    if workload == "publish":
        assert sample.raw["sent_bytes"] == COUNT * 1421


@pytest.mark.parametrize("mode", ["train", "fan"])
def test_trains_arrive_whole(built: dict[str, Path], mode: str) -> None:
    port = free_port()
    spec = servers.bare(built["bare"], mode, "--to", f"127.1.3.232:{port}")
    sample, log = send(built, spec, "stream", "--train", "20", port=port)
    assert sample.raw["sent"] == sample.raw["answers"] == COUNT
    assert sample.raw["answer_bytes"] == COUNT * 1421
    assert json.loads(log)["received"] == COUNT


def test_load_refuses_targets_that_are_not_loopback(built: dict[str, Path]) -> None:
    done = subprocess.run([built["load"], "ping", "--to", "192.0.2.1:9"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "loopback" in done.stderr


def test_figures() -> None:
    found = figure([2.0, 8.0, 4.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.n) == (4.0, 2.0, 8.0, 3)
    assert found.ci_low < 4.0 < found.ci_high
    ratio = paired([2.0, 6.0], [1.0, 3.0])
    assert ratio is not None
    assert ratio.median == ratio.ci_low == ratio.ci_high == 2.0
    assert figure([]) is None


def test_rows_have_unique_names_and_bars_name_their_programs(built: dict[str, Path]) -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
    for row in ROWS:
        labels = [c.label for c in row.contestants(built["bare"])]
        assert len(labels) == len(set(labels))
        for bar in row.bars if labels else ():
            assert bar.who in labels
            assert bar.against in labels


def test_a_quick_run_prints_json(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [
        sys.executable,
        str(ROOT / "bench" / "run.py"),
        "--repetitions",
        "2",
        "--seconds",
        "0.1",
        "--json",
        str(out),
    ]
    command += ["--workload", "ping", "garbage", "--program", "bare"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "| ping " in done.stdout
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {"ping", "garbage"}
    for row in rows.values():
        assert len(row["capacity"]["bare"]) == 2
        for sample in row["capacity"]["bare"]:
            assert sample["handled_per_s"] > 0
            assert sample["cpu_us"] > 0
            assert 0 < sample["server_busy"] < 1.1
    assert len(rows["ping"]["half_load"]["bare"]) == 2
    assert all(0 < s["p50_us"] <= s["p99_us"] for s in rows["ping"]["half_load"]["bare"])
