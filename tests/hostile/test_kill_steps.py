"""SIGKILL before each step of start, reload and stop that leaves a trace: the identities stay, and the next start serves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.command import EXECUTABLE, clean_environment
from tests.app.node import Node
from tests.c_files import compile_with

HERE = Path(__file__).parent
MOST_STEPS = 200


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    library = tmp_path_factory.mktemp("preload") / "kill_at.so"
    compile_with([str(HERE / "kill_at.c"), "-shared", "-fPIC", "-ldl", "-Wno-pedantic"], library)
    return str(library)


class Killed:
    """A node that dies before the n-th step of what it is told to do."""

    def __init__(self, preload: str) -> None:
        self.node = Node()
        self.node.write()
        self.at = self.node.directory / "kill-at"
        self.at.write_text("0")
        self.environment = {"LD_PRELOAD": preload, "KILL_AT": str(self.at)}
        self.steps: list[str] = []
        self.keys: dict[str, bytes] = {}
        self.config = self.node.file.read_bytes()

    def spawn(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [EXECUTABLE, "run", "-c", str(self.node.file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**clean_environment(), **self.environment},
        )

    def check(self) -> None:
        """What is there is whole, and a key that was there before is the same."""
        assert self.node.file.read_bytes() == self.config
        state = self.node.directory / "state"
        files = {path.name: path.read_bytes() for path in state.iterdir()} if state.is_dir() else {}
        for name, data in files.items():
            if name.endswith(".json"):
                json.loads(data)
            if name.endswith(".key"):
                assert data.endswith(b"\n"), f"{name} is cut"
        now = {name: data for name, data in files.items() if name.endswith(".key")}
        assert {name: now.get(name) for name in self.keys} == self.keys, "a key was replaced"
        self.keys = now

    def serves(self) -> None:
        """Starts it undisturbed; it answers with the identities that it had."""
        self.at.write_text("0")
        self.node.start(environment=self.environment)
        assert len(self.node.ask("info")) == 2
        self.check()


@pytest.fixture
def killed(preload: str) -> Iterator[Killed]:
    made = Killed(preload)
    yield made
    made.node.close()


def started(process: subprocess.Popen[str]) -> str:
    """The step before which it was killed, "" when it serves (then it is ended)."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if " ready: " in line:
            process.kill()
            process.communicate()
            return ""
    assert process.wait(60) == -9, (process.returncode, lines)
    return lines[-1]


def test_each_step_of_the_first_start(preload: str) -> None:
    """From nothing each time; what the killed one left is enough for the next to make, once, what is missing."""
    steps: list[str] = []
    while len(steps) < MOST_STEPS:
        killed = Killed(preload)
        try:
            killed.at.write_text(str(len(steps) + 1))
            step = started(killed.spawn())
            if not step:
                break
            steps.append(step)
            killed.check()
            killed.serves()
            assert killed.node.end() == 0
            left = {path.name for path in (killed.node.directory / "state").iterdir()}
            assert left == {"a.key", "a.peers", "b.key", "b.peers", "lock", "volume.json"}, (steps, left)
        finally:
            killed.node.close()
    assert {"open", "write", "fsync", "link", "bind", "listen", "mkdir"} <= set(steps), steps
    assert len(steps) < MOST_STEPS


def test_each_step_of_a_stop(killed: Killed) -> None:
    for met in range(MOST_STEPS):
        killed.serves()
        killed.at.write_text(str(met + 1))
        process = killed.node.process
        assert process is not None
        process.terminate()
        status = process.wait(60)
        killed.node.process = None
        killed.check()
        if status == 0:
            break
        killed.steps.append(str(status))
    assert 3 <= len(killed.steps) < MOST_STEPS
    assert set(killed.steps) == {"-9"}
    killed.serves()


def test_each_step_of_a_reload(killed: Killed) -> None:
    killed.serves()
    for met in range(MOST_STEPS):
        killed.at.write_text(str(met + 1))
        done = subprocess.run(
            [EXECUTABLE, "reload", "-c", str(killed.node.file)], capture_output=True, timeout=60, env=clean_environment()
        )
        killed.check()
        if done.returncode == 0:
            break
        assert killed.node.process is not None
        assert killed.node.process.wait(60) == -9
        killed.serves()
    assert met < MOST_STEPS - 1
    killed.at.write_text("0")
    assert killed.node.end() == 0
