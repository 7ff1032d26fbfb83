"""The reference decoder in a Node child process: what it makes of datagrams and of sealed messages."""

import json
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.node import node, reference_dir

COMMAND = 0xFFFFFFFF
BATCH = 500  # datagrams; the child answers a batch at once, so a batch and its answers must not fill both pipes


class Reference:
    """A running child; use it in a with statement."""

    def __init__(self) -> None:
        reference_dir()
        self._child = subprocess.Popen(
            [node(), str(Path(__file__).with_name("reference.mjs"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child: it stops at the end of its input."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the reference decoder died")
        return json.loads(line)

    def _send(self, data: bytes) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(data)
        self._child.stdin.flush()

    def decode(self, datagrams: list[bytes]) -> list[dict[str, Any] | None]:
        """What the reference makes of each datagram: None when it refuses it, else version, the numbers, the byte
        fields in hex and, when the message was read as a JSON object or list, `json`: key to (type, value)."""
        answers = []
        for at in range(0, len(datagrams), BATCH):
            batch = datagrams[at : at + BATCH]
            self._send(struct.pack(">I", len(batch)) + b"".join(struct.pack(">I", len(data)) + data for data in batch))
            answers += [self._answer() for _ in batch]
        return answers

    def open(self, sealed: bytes, shared_key: bytes) -> bytes | None:
        """The message that a sealed one holds for the key pair of a shared key; None when it does not open."""
        text = json.dumps({"open": sealed.hex(), "key": shared_key.hex()}).encode()
        self._send(struct.pack(">II", COMMAND, len(text)) + text)
        answer = self._answer()
        return None if answer is None else bytes.fromhex(answer)
