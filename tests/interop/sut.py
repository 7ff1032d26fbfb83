"""The system under test: one process that is two indexed peers. Normally that is `srpnode run`; with
SRPNODE_SUT=reference it is two reference introducers instead, the control experiment: a scenario that the reference
passes among itself and srpnode fails is srpnode's fault, and harness and scenario are known to be right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from tests.interop.experiment import REFERENCE
from tests.interop.raw import RawPeer
from tests.interop.reference import Entry, ReferenceProcess, sha256_hex
from tests.interop.waiting import eventually

START_S: Final = 60.0
HEAR_S: Final = 0.2
STOP_S: Final = 20.0


@dataclass(frozen=True)
class Settings:
    """What a scenario asks of the node; None keeps the default."""

    keep_alive_s: float | None = None
    replicated_per_minute: int | None = None
    peers: tuple[Entry, ...] = ()
    limits: tuple[str, ...] = ()  # lines of [limits]


class Introducer(Protocol):
    """Both kinds of system under test."""

    entries: list[Entry]

    def drops(self) -> dict[str, int]:
        """Dropped datagrams by reason, summed over both identities."""

    def restart(self) -> None:
        """Stops the process and starts it again: same identities, same ports, nothing remembered."""

    def set_peers(self, peers: Iterable[Entry]) -> None:
        """Makes other indexed peers known, by a restart."""

    def close(self) -> None: ...


def free_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def answers_or_ended(peer: RawPeer, entry: Entry, ended: Callable[[], bool]) -> bool:
    return ended() or peer.hear(entry, HEAR_S)


def wait_answering(entries: Iterable[Entry], address: str, ended: Callable[[], bool]) -> None:
    """Returns when a peer answers pings at every entry's endpoint; AssertionError after START_S, or when it ended."""
    peer = RawPeer(address, answers=False)
    try:
        for entry in entries:
            eventually(partial(answers_or_ended, peer, entry, ended), f"an answer at {entry.endpoint}", START_S)
            if ended():
                raise AssertionError("the process ended")
    finally:
        peer.close()


def executable() -> str:
    beside = Path(sys.executable).with_name("srpnode")
    found = str(beside) if beside.exists() else shutil.which("srpnode")
    if found is None:
        raise RuntimeError("srpnode is not installed in this environment")
    return found


class SrpNode:
    """`srpnode run -c FILE` with a configuration and a state directory of its own."""

    def __init__(self, addresses: tuple[str, str], pinger: str, settings: Settings) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="srpnode-"))  # short: a control socket's path is limited
        self._config = self._directory / "srpnode.toml"
        self._log = self._directory / "log"
        self._addresses = addresses
        self._pinger = pinger
        self._settings = settings
        self._peers: tuple[Entry, ...] = settings.peers
        self._ports = [(free_port(address), free_port(address)) for address in addresses]
        self._process: subprocess.Popen[bytes] | None = None
        self.entries: list[Entry] = []
        try:
            self._start()
        except BaseException:
            self._kill()
            raise

    def _write_config(self) -> None:
        lines = [f'state_dir = "{self._directory}/state"']
        if self._settings.keep_alive_s is not None:
            lines.append(f"keep_alive = {float(self._settings.keep_alive_s)}")
        for name, address, (port, probe_port) in zip("ab", self._addresses, self._ports, strict=True):
            lines += [
                "[[listen]]",
                f'name = "{name}"',
                f'address = "{address}"',
                f"port = {port}",
                f"probe_port = {probe_port}",
                f'advertise = "{address}"',
                'nat = "static"',
            ]
        for peer in self._peers:
            lines += ["[[peer]]", f'address = "{peer.address}"', f"port = {peer.port}", f'peer_id = "{peer.peer_id}"']
        limits = list(self._settings.limits)
        if self._settings.replicated_per_minute is not None:
            limits.append(f"replicated_per_minute = {self._settings.replicated_per_minute}")
        if limits:
            lines += ["[limits]", *limits]
        lines += ["[metrics]", 'listen = ""', "[control]", f'socket = "{self._directory}/control.sock"']
        self._config.write_text("\n".join(lines) + "\n")

    def _json(self, command: str) -> Any:
        done = subprocess.run(
            [executable(), command, "-c", str(self._config), "--json"], capture_output=True, text=True, timeout=START_S
        )
        if done.returncode != 0:
            raise AssertionError(f"srpnode {command}: exit {done.returncode}: {done.stderr}{self._tail()}")
        return json.loads(done.stdout)

    def _tail(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return f"\n--- the node's own words:\n{text[-4000:]}"

    def _start(self) -> None:
        self._write_config()
        with self._log.open("ab") as log:
            process = self._process = subprocess.Popen(
                # Should the test run be killed, the node goes with it.
                ["setpriv", "--pdeathsig", "TERM", executable(), "run", "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        # The identities are made at the first start: until then there may be nothing to tell of them.
        probes = [
            Entry(name, address, port, probe_port, "")
            for name, address, (port, probe_port) in zip("ab", self._addresses, self._ports, strict=True)
        ]
        try:
            wait_answering(probes, self._pinger, ended=lambda: process.poll() is not None)
        except AssertionError as error:
            raise AssertionError(f"{error}{self._tail()}") from None
        self.entries = [Entry(e["name"], e["address"], e["port"], e["probePort"], e["peerId"]) for e in self._json("info")]
        assert [(e.address, e.port, e.probe_port) for e in self.entries] == [
            (e.address, e.port, e.probe_port) for e in probes
        ], "info must name the configured endpoints"

    def _stop(self) -> None:
        process = self._process
        assert process is not None
        self._process = None
        early = process.poll()
        if early is not None:
            raise AssertionError(f"the node ended by itself, exit {early}{self._tail()}")
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the node did not stop on SIGTERM{self._tail()}") from None
        if code != 0:
            raise AssertionError(f"the node stopped with exit {code}{self._tail()}")

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._json("status")
        return status

    @property
    def pid(self) -> int:
        assert self._process is not None
        return int(self._process.pid)

    def peers(self) -> list[dict[str, Any]]:
        peers: list[dict[str, Any]] = self._json("peers")
        return peers

    def drops(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for identity in self.status()["identities"]:
            for reason, count in identity["drops"].items():
                total[reason] = total.get(reason, 0) + int(count)
        return total

    def restart(self) -> None:
        before = self.entries
        self._stop()
        self._start()
        assert self.entries == before, "identities must survive a restart"

    def set_peers(self, peers: Iterable[Entry]) -> None:
        self._peers = tuple(peers)
        self.restart()

    def close(self) -> None:
        try:
            if self._process is not None:
                self._stop()
        finally:
            self._kill()


class ReferenceIntroducers:
    """Two reference introducers in a Node process of their own. Limits cannot be set there."""

    def __init__(self, addresses: tuple[str, str], pinger: str, settings: Settings) -> None:
        self._pinger = pinger
        self._settings = settings
        self._peers: tuple[Entry, ...] = settings.peers
        self.entries = [
            Entry(name, address, free_port(address), free_port(address), sha256_hex(os.urandom(32)))
            for name, address in zip("ab", addresses, strict=True)
        ]
        self._process: ReferenceProcess | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._process = ReferenceProcess()
        for entry in self.entries:
            keep_alive = self._settings.keep_alive_s
            self._process.request(
                "introducer",
                client=entry.name,
                address=entry.address,
                port=entry.port,
                probePort=entry.probe_port,
                peerId=entry.peer_id,
                nodes=[other.wire() for other in (*self.entries, *self._peers) if other is not entry],
                keepAlive=None if keep_alive is None else int(keep_alive * 1000),
            )
        wait_answering(self.entries, self._pinger, ended=lambda: False)

    def drops(self) -> dict[str, int]:
        assert self._process is not None
        stats = [self._process.request("stats", client=entry.name) for entry in self.entries]
        return {"dropped": sum(s["metrics"]["i"]["DROPPED"] for s in stats)}

    def restart(self) -> None:
        self.close()
        self._start()

    def set_peers(self, peers: Iterable[Entry]) -> None:
        self._peers = tuple(peers)
        self.restart()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def start(addresses: tuple[str, str], pinger: str, settings: Settings) -> Introducer:
    """Starts the system under test on two loopback addresses; `pinger` is a third, to ask whether it answers."""
    kind = ReferenceIntroducers if REFERENCE else SrpNode
    return kind(addresses, pinger, settings)
