"""The examples, run as their texts say."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.sut import Introducer
from tests.interop.waiting import eventually
from tests.peer.conftest import DEADLINE_S

EXAMPLES = Path(__file__).parents[2] / "examples"


class Program:
    """An example at work: what it says, line by line."""

    def __init__(self, name: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(EXAMPLES / name), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end_of_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def says(self, text: str) -> None:
        def probe() -> bool:
            if text not in self.said and self.process.poll() not in (None, 0):
                assert self.process.stderr is not None
                raise AssertionError(self.process.stderr.read())
            return text in self.said

        eventually(probe, f"{text!r}; it said {self.said}", DEADLINE_S)


Start = type[Program]


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    made: list[Program] = []
    yield made
    for program in made:
        program.process.kill()
        program.process.wait()


@pytest.fixture
def peers(node: Introducer) -> list[str]:
    return [entry.endpoint for entry in node.entries]


def test_hello(programs: list[Program], peers: list[str]) -> None:
    programs += [Program("hello.py", *peers) for _ in range(2)]
    for program in programs:
        program.says("{'language': 'english'}")


def alice_and_bob(name: str, programs: list[Program], peers: list[str]) -> tuple[Program, Program, str]:
    """An example that two people run, and what they have agreed upon."""
    common = os.urandom(8).hex()
    programs += [Program(name, common, person, *peers) for person in ("alice", "bob")]
    return programs[-2], programs[-1], common


def test_chat(programs: list[Program], peers: list[str]) -> None:
    alice, bob, room = alice_and_bob("chat.py", programs, peers)
    alice.says("* bob is here")
    bob.says("* alice is here")
    alice.type("good morning")
    bob.says("alice: good morning")
    bob.type("/alice psst")
    alice.says("(bob): psst")
    bob.type("/carol hello?")
    bob.says("* nobody here is called carol")
    bob.end_of_input()
    assert bob.process.wait(DEADLINE_S) == 0
    carol = Program("chat.py", room, "carol", *peers)
    programs.append(carol)
    carol.says("alice: good morning")  # said before carol came


def test_file_transfer(programs: list[Program], peers: list[str], tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(333_333))
    secret = os.urandom(8).hex()
    get = Program("file_transfer.py", "get", secret, str(target), *peers)
    put = Program("file_transfer.py", "put", secret, str(source), *peers)
    programs += [get, put]
    for program in programs:
        assert program.process.wait(DEADLINE_S) == 0, program.process.stderr and program.process.stderr.read()
    assert target.read_bytes() == source.read_bytes()


def test_presence(programs: list[Program], peers: list[str]) -> None:
    alice, bob, _ = alice_and_bob("presence.py", programs, peers)
    alice.says("bob: here")
    bob.says("alice: here")
    alice.type("at lunch")
    bob.says("alice: at lunch")
    alice.end_of_input()
    bob.says("alice: gone")
    assert alice.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("name", ["chat.py", "file_transfer.py", "presence.py"])
def test_says_how_it_is_used(name: str) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"python examples/{name}" in done.stderr
