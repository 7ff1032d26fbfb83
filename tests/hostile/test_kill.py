"""SIGKILL at any moment of start, reload and stop: identities stay, the configuration stays, the next start serves."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.command import clean_environment, srpnode
from tests.app.node import Node

ROUNDS = 4
START_S = 0.6  # a start takes about so long
MOMENT_S = 0.15


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    node.write()
    yield node
    node.close()


def state_files(node: Node) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (node.directory / "state").iterdir() if path.is_file()}


def check_state(node: Node, config: bytes) -> None:
    """Everything there is whole: no half file, and the configuration as it was."""
    assert node.file.read_bytes() == config
    for name, data in state_files(node).items():
        if name.endswith(".json"):
            json.loads(data)
        if name.endswith(".key"):
            assert data.endswith(b"\n"), f"{name} is cut"


def spawn(node: Node) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        node.command("run", "-c", str(node.file)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )


def test_killed_while_starting(node: Node) -> None:
    """The very first starts make the keys: one that was shown to anybody is never replaced."""
    rng = random.Random(7)
    config = node.file.read_bytes()
    keys: dict[str, bytes] = {}
    for i in range(ROUNDS * 2):
        process = spawn(node)
        time.sleep(rng.uniform(0.02, START_S) if i else START_S / 3)
        process.kill()
        process.wait()
        if (node.directory / "state").is_dir():
            check_state(node, config)
            now = {name: data for name, data in state_files(node).items() if name.endswith(".key")}
            assert {name: now.get(name) for name in keys} == keys, "a key was replaced"
            keys = now
    node.start()
    entries = node.ask("info")
    assert {name.removesuffix(".key") for name in keys} <= {entry["name"] for entry in entries}
    assert len(entries) == 2


def test_killed_while_serving_reloading_and_stopping(node: Node) -> None:
    rng = random.Random(8)
    config = node.file.read_bytes()
    node.start()
    entries = node.ask("info")
    for i in range(ROUNDS):
        assert node.process is not None
        if i % 2 == 0:
            reload = subprocess.Popen(
                node.command("reload", "-c", str(node.file)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        else:
            reload = None
            node.process.send_signal(signal.SIGTERM)
        time.sleep(rng.uniform(0.0, MOMENT_S))
        node.end(signal.SIGKILL)  # does nothing when it has ended already
        if reload is not None:
            reload.wait(60)
        check_state(node, config)
        node.start()
        assert node.ask("info") == entries
    done = srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}")
    assert done.returncode == 0, done
    assert not [path for path in Path(node.directory, "state").iterdir() if "tmp" in path.name or "new" in path.name]
