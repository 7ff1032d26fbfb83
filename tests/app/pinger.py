"""Sends pings to a port of 127.0.0.1 at a steady rate, prints how many were answered: pinger PORT SECONDS RATE."""

import json
import secrets
import socket
import sys
import time

from srpnode.core import codec

LAST_ANSWER_S = 15.0


def main(port: int, seconds: float, per_second: float) -> None:
    """Prints {"sent", "answered", "longest_ms"}."""
    sent: dict[str, float] = {}
    waits: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        start = time.monotonic()
        while True:
            now = time.monotonic()
            if now < start + seconds and len(sent) + len(waits) < (now - start) * per_second:
                ping_id = secrets.token_hex(6)
                message = codec.write_message(codec.PING, {"requesterPeerId": "ab" * 32, "pingId": ping_id})
                sent[ping_id] = now
                sock.sendto(codec.encode(codec.PING, message=message), ("127.0.0.1", port))
            if now > start + seconds and (not sent or now > start + seconds + LAST_ANSWER_S):
                break
            sock.settimeout(1.0 / per_second / 4)
            try:
                data = sock.recv(2048)
            except TimeoutError:
                continue
            if codec.decode(data)["type"] == codec.PONG:
                waited = sent.pop(str(codec.read_message(data)["pingId"]), None)
                if waited is not None:
                    waits.append(time.monotonic() - waited)
    longest_ms = round(1000 * max(waits, default=0.0), 1)
    print(json.dumps({"sent": len(waits) + len(sent), "answered": len(waits), "longest_ms": longest_ms}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
