"""The control socket: a unix stream socket, mode 0660, JSON lines.

A request is one line {"command": NAME, …}; so is the answer: {"ok": true, "result": …} or {"ok": false, "error": …}.
"""

import contextlib
import json
import os
import selectors
import socket
import stat
import time
from collections.abc import Callable
from typing import Any

from srpnode import identity
from srpnode.schema import Config
from srpnode.streams import StreamServer

REQUEST_MAX = 65_536  # bytes
ANSWER_MAX = 256_000_000  # bytes; 100 000 peers take about 30 MB
TIMEOUT_S = 10.0

Command = Callable[[dict[str, Any]], Any]


class ControlError(Exception):
    """The request failed; the text says why, for the operator."""


def listen(path: str) -> socket.socket:
    """Binds the control socket, taking the place of one that nobody serves any more. Raises ControlError."""
    directory = os.path.dirname(path) or "."
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise ControlError(f"{path}: is not a socket; move it away or set another control.socket")
            if _served(path):
                raise ControlError(f"{path}: another srpnode serves it; stop it or set another control.socket")
            os.unlink(path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            server.bind(path)
        finally:
            os.umask(before)
        server.listen(64)
    except OSError as error:
        raise ControlError(
            f"{path}: control socket cannot be made ({error.strerror}); check the directory or set another "
            "control.socket"
        ) from None
    return server


def _served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


class ControlServer:
    """Answers requests with the functions in `commands`; these run in the thread that drives the selector."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        commands: dict[str, Command],
        failed: Callable[[str], object],
    ) -> None:
        """`failed` is told of exceptions that are no ControlError."""
        self._path = listener.getsockname()
        self._inode = os.stat(self._path).st_ino
        self._commands = commands
        self._failed = failed
        self._server = StreamServer(selector, listener, self._handle, REQUEST_MAX, keep_open=True)
        self.sweep = self._server.sweep

    def _handle(self, received: bytes) -> tuple[bytes, int] | None:
        line, newline, _ = received.partition(b"\n")
        if not newline:
            return None
        return (json.dumps(self._answer(line), separators=(",", ":")) + "\n").encode(), len(line) + 1

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = self._commands[request["command"]]
        except (ValueError, RecursionError):
            return {"ok": False, "error": "not a JSON object on one line"}
        except (KeyError, TypeError):
            return {"ok": False, "error": f"unknown command; known are {', '.join(sorted(self._commands))}"}
        try:
            return {"ok": True, "result": command(request)}
        except ControlError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:  # a fault of ours in one answer must not end the node
            self._failed(f"control command {request['command']}: {type(error).__name__}: {error}")
            return {"ok": False, "error": f"internal fault: {type(error).__name__}: {error}"}

    def close(self) -> None:
        """Closes and removes the socket, unless another node has put its own there."""
        self._server.close()
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def connect(config: Config, timeout_s: float = TIMEOUT_S) -> "ControlClient":
    """A connection to the running node of that configuration, also when control.socket was changed since it started.
    Raises ControlError."""
    try:
        return ControlClient(config.control.socket, timeout_s)
    except ControlError:
        started_with = identity.running_control_socket(config.state_dir)
        if started_with in ("", config.control.socket):
            raise
    return ControlClient(started_with, timeout_s)


class ControlClient:
    """One connection to a running node."""

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S) -> None:
        """Connects. Raises ControlError when no node answers there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    self._socket.connect(path)
                    break
                except BlockingIOError:  # the queue of the listener is full
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise ControlError(
                f"{path}: no srpnode is running there; start it, name its file with -c, or restart it if "
                "control.socket has changed"
            ) from None
        except PermissionError:
            self._socket.close()
            raise ControlError(f"{path}: not permitted; use root or join the group of the socket") from None
        except OSError as error:
            self._socket.close()
            raise ControlError(f"{path}: {error.strerror or error}") from None
        self._file = self._socket.makefile("rb")
        self._path = path

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result of one command. Raises ControlError."""
        try:
            self._socket.sendall((json.dumps({"command": command, **arguments}) + "\n").encode())
            line = self._file.readline(ANSWER_MAX)
            answer = json.loads(line) if line.endswith(b"\n") else None
        except TimeoutError:
            raise ControlError(f"{self._path}: the node did not answer in time") from None
        except (OSError, ValueError) as error:
            raise ControlError(f"{self._path}: {error}") from None
        if not isinstance(answer, dict):
            raise ControlError(f"{self._path}: the node closed the connection")
        if not answer.get("ok"):
            raise ControlError(str(answer.get("error")))
        return answer["result"]

    def close(self) -> None:
        """Ends the connection."""
        self._file.close()
        self._socket.close()
