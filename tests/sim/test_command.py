"""srpnode sim: what is refused, what is printed, what is drawn, what an interrupt leaves."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from srpnode.sim import scenario
from srpnode.sim.command import main
from srpnode.sim.scenario import ScenarioError

TOML = """
title = "small"
duration_s = 40
[peers]
count = 12
lifetime_s = 60
start_over_s = 2
[publish]
start_s = 15
every_s = 5
watch_s = 5
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(TOML)
    return str(path)


@pytest.mark.parametrize("name", scenario.shipped())
def test_shipped_scenarios_are_valid(name: str) -> None:
    assert scenario.load(name)["title"]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"peers": {"cuont": 5}}, "peers.cuont: unknown key; did you mean count?"),
        ({"peers": {"count": 0}}, "peers.count"),
        ({"peers": {"count": "many"}}, "peers.count"),
        ({"peers": {"initial": 500}}, "peers.initial"),
        ({"peers": {"lifetime": "long"}}, "peers.lifetime"),
        ({"network": {"loss": 1.5}}, "network.loss"),
        ({"network": {"loss": float("nan")}}, "network.loss"),
        ({"network": {"latency_p99_ms": 1}}, "network.latency_p99_ms"),
        ({"nat": {"symmetric": 0.5}}, "nat.none"),
        ({"nat": {"hairpin": 1}}, "nat.hairpin"),
        ({"publish": {"start_s": 899}}, "publish.start_s"),
        ({"publish": {"flood_per_s": 5}}, "publish.flooders"),
        ({"fault": [{"kind": "fire"}]}, "fault[0].kind"),
        ({"fault": [{"kind": "away", "at_s": 5000}]}, "fault[0].at_s"),
        ({"fault": 3}, "fault"),
        ({"netwrok": {}}, "netwrok"),
    ],
)
def test_impossible_scenarios_name_the_key(given: dict[str, Any], key: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario.complete(given)
    assert str(refused.value).startswith(key)


def test_refusal_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[peers]\ncount = -1\n")
    assert main([str(path)]) == 1
    assert "bad.toml: peers.count: must be 1 to" in capsys.readouterr().err


def test_json_and_figures(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = tmp_path / "figure.svg"
    assert main([small, "--seeds", "2", "--jobs", "2", "--seed", "3", "--json", "--svg", str(drawing)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in told["runs"]] == [3, 4]
    assert 0 < told["summary"]["weighed"]["reach_end"][0] <= 1
    root = ElementTree.parse(drawing).getroot()
    assert root.tag.endswith("svg")
    assert len(root.findall("{http://www.w3.org/2000/svg}path")) > 20


def test_text_and_override(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([small, "--set", "peers.selection=reference"]) == 0
    told = capsys.readouterr().out
    assert "small (reference selection): 1 run" in told
    assert "reach in 0.72 s" in told


def test_compare_shows_the_difference_for_each_seed(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([small, "--seeds", "2", "--jobs", "1", "--compare"]) == 0
    told = capsys.readouterr().out
    assert "small (weighed selection): 2 runs" in told
    assert "small (reference selection): 2 runs" in told
    assert "difference for the same seed: 2 pairs" in told


def test_figures_that_cannot_be_drawn_are_refused_before_the_run(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([small, "--svg", str(tmp_path / "nowhere" / "figure.svg")]) == 1
    assert f"{tmp_path / 'nowhere' / 'figure.svg'}: no directory that can be written to" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([small, "--png", str(tmp_path / "figure.png")]) == 1
    told = capsys.readouterr()
    assert "Debian: librsvg2-bin" in told.err
    assert told.out == ""


def test_a_fault_and_what_came_of_it(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the network cannot reach the other half for six seconds; both have everything in the end."""
    scenario_file = Path(small)
    scenario_file.write_text(
        TOML.replace("duration_s = 40", "duration_s = 90").replace("watch_s = 5", "watch_s = 40")
        + '[[fault]]\nkind = "partition"\nat_s = 24\nfor_s = 6\n'
    )
    assert main([small, "--json", "--seed", "2"]) == 0
    (recovery,) = json.loads(capsys.readouterr().out)["runs"][0]["recovery"]
    assert recovery["kind"] == "partition"
    assert recovery["lowest_720_ms"] < 0.9
    assert 0 < recovery["caught_up_after_s"] < 40
    assert recovery["usual_after_s"] < 25
    assert main([small]) == 0
    assert "  partition: at worst " in capsys.readouterr().out


def test_attackers_take_part_and_relay_nothing(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--set", "attackers.count=20", "--set", "attackers.start_s=10", "--set", "attackers.lifetime_s=5", "--json"]
    assert main([small, *few, "--set", "attackers.close=true"]) == 0
    told = json.loads(capsys.readouterr().out)["runs"][0]
    silent = told["traffic"]["silent"]
    assert silent["packets_received"] > 0
    assert silent["packets_sent"] == 0
    assert silent["sent"] > 0
    assert told["hosts"] > 60, "they come again under new names"
    assert told["packets_published"][-1]["in_watch"] > 0.5


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_prints_what_there_is(small: str, jobs: str) -> None:
    command = [sys.executable, "-m", "srpnode.sim.command", small, "--set", "duration_s=100000", "--json"]
    command += ["--seeds", "4", "--jobs", jobs]
    root, pipe = Path(__file__).parents[2], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=root) as run:
        deadline = time.monotonic() + 60
        while len([pid for pid in family(run.pid) if cpu_s(pid) > 2]) < int(jobs):  # all of them compute
            assert run.poll() is None, run.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 1, err
    told = json.loads(out)
    assert len(told["runs"]) == int(jobs)
    assert all(run["interrupted"] and run["virtual_us"] > 0 for run in told["runs"])
