"""Round trips to any peer, and where it sees us: the command `srpnode ping`."""

import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from srpnode.core import codec

TIMEOUT_S = 2.0  # for one answer
INTERVAL_S = 0.25
DATAGRAM_MAX = 2_048


class PingError(Exception):
    """No ping could be sent; the text is for the operator."""


def ping(
    peer: tuple[str, int], count: int, show: Callable[[str], object] | None, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Sends `count` pings to (host, port), one after the other, each with so long for its answer; tells them to `show`.

    Returns {"address", "port", "sent", "received", "roundTrips" (ms), "seenAs" ("ADDRESS:PORT" or None), "peerId",
    "natType"}. Raises PingError when the host is unknown or nothing can be sent.
    """
    try:
        found = socket.getaddrinfo(*peer, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
    except socket.gaierror as error:
        raise PingError(f"{peer[0]}: {error.strerror}") from None
    target = (str(found[0]), int(found[1]))
    result: dict[str, Any] = {
        "address": target[0],
        "port": target[1],
        "sent": 0,
        "received": 0,
        "roundTrips": [],
        "seenAs": None,
        "peerId": None,
        "natType": None,
    }
    ours = secrets.token_hex(32)  # nobody's: the answer needs no more
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(target)
        except OSError as error:
            raise PingError(f"{target[0]}:{target[1]}: {error.strerror}") from None
        for number in range(count):
            if number:
                time.sleep(INTERVAL_S)
            ping_id = secrets.token_hex(6)
            message = {"requesterPeerId": ours, "pingId": ping_id}
            text = codec.write_message(codec.PING, dict(message))
            started = time.perf_counter()
            try:
                sock.send(codec.encode(codec.PING, message=text))
                result["sent"] += 1
                answer = _answer(sock, ours, ping_id, started, timeout_s)
            except OSError as error:  # ICMP: nobody listens there, or no way to it
                answer = f"{target[0]}:{target[1]}: {error.strerror}"
            line = _note(result, answer, (time.perf_counter() - started) * 1000.0)
            if show:
                show(line)
    if show:
        show(f"{result['sent']} sent, {result['received']} answered{_spread(result['roundTrips'])}")
    return result


def _answer(sock: socket.socket, ours: str, ping_id: str, started: float, timeout_s: float) -> dict[str, Any] | str:
    """The pong to that ping, or why there is none."""
    while (left_s := started + timeout_s - time.perf_counter()) > 0:
        sock.settimeout(left_s)
        try:
            data = sock.recv(DATAGRAM_MAX)
            frame = codec.decode(data)
            if frame["type"] != codec.PONG:  # the peer pings us too, to learn whether we are where we seem to be
                continue
            message: dict[str, Any] = dict(codec.read_message(data))
        except TimeoutError:
            break
        except codec.Malformed:
            continue
        if message.get("pingId") == ping_id and message.get("requesterPeerId") == ours:
            return message
    return f"no answer in {timeout_s:g} s"


def _note(result: dict[str, Any], answer: dict[str, Any] | str, took_ms: float) -> str:
    if isinstance(answer, str):
        return answer
    result["received"] += 1
    result["roundTrips"].append(round(took_ms, 3))
    result["peerId"] = answer.get("responderPeerId")
    result["natType"] = answer.get("natType")
    seen = ""
    if "address" in answer and "port" in answer:
        result["seenAs"] = f"{answer['address']}:{answer['port']}"
        seen = f", sees us at {result['seenAs']}"
    return f"{took_ms:.3f} ms from {result['address']}:{result['port']}{seen}, peerId {result['peerId']}"


def _spread(times: list[float]) -> str:
    if not times:
        return ""
    return f"; {min(times):.3f} ms least, {sum(times) / len(times):.3f} mean, {max(times):.3f} most"
