"""The Python side of tests/reference/driver.mjs: unmodified reference peers in a Node process, one call for each
thing that an application does with them, and a journal of what they told their applications."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tests.interop.datagram import base64_text
from tests.interop.waiting import DEADLINE_S, eventually
from tests.node import node, reference_dir

Event = dict[str, Any]
REQUEST_S: Final = 60.0
CLOSE_S: Final = 5.0

UNRESTRICTED: Final = 31
ADDR_RESTRICTED: Final = 15
PORT_RESTRICTED: Final = 7
ENDPOINT_RESTRICTED: Final = 5


@dataclass(frozen=True)
class Entry:
    """An indexed peer as an application lists it. Ports are UDP, `peer_id` is 64 hex digits."""

    name: str
    address: str
    port: int
    probe_port: int
    peer_id: str

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"

    def wire(self) -> dict[str, Any]:
        return {"address": self.address, "port": self.port, "peerId": self.peer_id}


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class ReferenceProcess:
    """One Node process with any number of reference peers in it. Requests block; events are kept for ever."""

    def __init__(self) -> None:
        directory: Path = reference_dir()
        self._process = subprocess.Popen(
            [node(), "driver.mjs"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_NO_WARNINGS": "1"},
        )
        self._ids = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._write = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "event" in message:
                with self._changed:
                    self._events.append(message)
                    self._changed.notify_all()
            else:
                self._answers[message["id"]].put(message)

    def request(self, op: str, **arguments: Any) -> Any:
        """Runs one operation of the driver; RuntimeError with the peer's own words when it failed."""
        number = next(self._ids)
        answer: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answers[number] = answer
        line = json.dumps({"id": number, "op": op, **{k: v for k, v in arguments.items() if v is not None}})
        assert self._process.stdin is not None
        with self._write:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        try:
            message = answer.get(timeout=REQUEST_S)
        except queue.Empty:
            raise RuntimeError(f"no answer to {op} within {REQUEST_S:g} s") from None
        finally:
            del self._answers[number]
        if "error" in message:
            raise RuntimeError(f"{op}: {message['error']}")
        return message["result"]

    def events(self, client: str, kind: str | None = None) -> list[Event]:
        with self._changed:
            return [e for e in self._events if e["client"] == client and kind in (None, e["event"])]

    def wait(self, probe: Callable[[], Any], what: Callable[[], str], deadline_s: float = DEADLINE_S) -> Any:
        """Runs `probe` after every event until it returns something true; AssertionError after the deadline."""
        end = time.monotonic() + deadline_s
        while True:
            value = probe()
            if value:
                return value
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not within {deadline_s:g} s: {what()}")
            with self._changed:
                self._changed.wait(min(left, 0.5))

    def errors(self) -> list[str]:
        """All that must not happen in an honest peer: exceptions, rejections, datagrams it could not read."""
        errors: list[str] = self.request("errors")
        return errors

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(CLOSE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Named(Protocol):
    """A peer of any kind."""

    @property
    def peer_id(self) -> str: ...


class Client:
    """One reference client: its own loopback address, its own identity."""

    def __init__(
        self,
        process: ReferenceProcess,
        name: str,
        address: str,
        nodes: Iterable[Entry],
        *,
        cluster: str = "cluster",
        kind: str = "api",
        nat: str = "none",
        keep_alive_ms: int | None = None,
        peer_id: str | None = None,
        port: int | None = None,
        preload: Iterable[bytes] = (),
        resume: str | None = None,
        blocked: Iterable[str] = (),
    ) -> None:
        self.process = process
        self.name = name
        self.address = address
        self.peer_id = peer_id or sha256_hex(os.urandom(32))
        result = process.request(
            "create",
            client=name,
            kind=kind,
            address=address,
            nat=nat,
            cluster=cluster,
            peerId=self.peer_id,
            nodes=[entry.wire() for entry in nodes],
            keepAlive=keep_alive_ms,
            port=port,
            preload=[data.hex() for data in preload],
            resume=resume,
            blocked=list(blocked),
        )
        self.port: int = result["port"]
        self.probe_port: int = result["probePort"]

    def __repr__(self) -> str:
        return self.name

    def _request(self, op: str, **arguments: Any) -> Any:
        return self.process.request(op, client=self.name, **arguments)

    # What an application does.

    def ready(self, deadline_s: float = DEADLINE_S) -> Event:
        """Waits until the peer is ready; returns its own description (address, port, natType, …)."""
        return self.wait("ready", deadline_s=deadline_s)

    def join(self, subcluster: str) -> bytes:
        """Joins; returns the subcluster's id."""
        return bytes.fromhex(self._request("join", subcluster=subcluster)["subclusterId"])

    def listen(self, subcluster: str, event: str) -> None:
        self._request("listen", subcluster=subcluster, event=event)

    def emit(self, subcluster: str, event: str, data: bytes, ttl_ms: int | None = None) -> list[str]:
        """Publishes; returns the packetIds (of a split message: the composed one's)."""
        text = base64_text(data)
        ids: list[str] = self._request("emit", subcluster=subcluster, event=event, data=text, ttl=ttl_ms)["packetIds"]
        return ids

    def stream(self, subcluster: str, event: str, data: bytes, to: Named) -> None:
        text = base64_text(data)
        self._request("stream", subcluster=subcluster, event=event, data=text, to=to.peer_id)

    def query(self, packet_id: str) -> None:
        self._request("query", packetId=packet_id)

    def raw(self, data: bytes, to: Entry) -> None:
        """Sends bytes from the client's main socket."""
        self._request("raw", data=data.hex(), port=to.port, address=to.address)

    def forget(self) -> None:
        self._request("forget")

    def close(self) -> None:
        self._request("close")

    # What it knows and saw.

    def info(self) -> dict[str, Any]:
        result: dict[str, Any] = self._request("info")
        return result

    def peers(self) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self._request("peers")
        return result

    def peer(self, other: Client | Entry) -> dict[str, Any]:
        """What it knows of the other: address, port, natType, connected, proxy; empty when it knows nothing."""
        return next((p for p in self.peers() if p["peerId"] == other.peer_id), {})

    def wait_connected(self, other: Client | Entry) -> dict[str, Any]:
        """Waits until it is connected with the other; returns what it knows of it."""

        def connected() -> dict[str, Any]:
            peer = self.peer(other)
            return peer if peer.get("connected") else {}

        return eventually(connected, f"{self} connected with {other}")

    def wait_cached(self, packet_ids: set[str]) -> None:
        """Waits until its cache holds exactly these packets."""
        eventually(lambda: self.cached_ids() == packet_ids, f"{len(packet_ids)} packets at {self}")

    def cache(self) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self._request("cache")
        return result

    def cached_ids(self) -> set[str]:
        return {packet["packetId"] for packet in self.cache()}

    def log(
        self, type_: int | None = None, source: str | None = None, socket: str | None = None, since: int = 0
    ) -> list[dict[str, Any]]:
        """The datagrams it was handed, in order: type, from, socket, hops, packetId, message, …"""
        entries: list[dict[str, Any]] = self._request("log", type=type_, **{"from": source}, socket=socket, since=since)[
            "entries"
        ]
        return entries

    def log_length(self) -> int:
        length: int = self._request("log", type=-2)["length"]
        return length

    def stats(self) -> dict[str, Any]:
        result: dict[str, Any] = self._request("stats")
        return result

    def events(self, kind: str | None = None) -> list[Event]:
        return self.process.events(self.name, kind)

    def wait(self, kind: str, match: Callable[[Event], bool] = lambda _: True, deadline_s: float = DEADLINE_S) -> Event:
        """The first event of that kind that matches, past or coming."""
        event: Event = self.process.wait(
            lambda: next((e for e in self.events(kind) if match(e)), None),
            lambda: f"{kind} of {self.name}; it had {[e['event'] for e in self.events()][-20:]}",
            deadline_s,
        )
        return event

    def wait_message(self, data: bytes, deadline_s: float = DEADLINE_S) -> Event:
        """Waits for an application event with exactly this content, opened and verified."""
        wanted = sha256_hex(data)
        event = self.wait("message", lambda e: e.get("sha256") == wanted, deadline_s)
        assert event["opened"], event
        assert event["verified"], event
        assert event["size"] == len(data), event
        return event

    def wait_join(self, other: Client, deadline_s: float = DEADLINE_S) -> Event:
        """Waits for the application's #join that names the other client."""
        return self.wait("join", lambda e: e["peerId"] == other.peer_id, deadline_s)

    def met(self) -> set[str]:
        """peerIds that the application was told of by #join."""
        return {e["peerId"] for e in self.events("join")}
