"""Programs inside a namespace, and the lines of JSON that are spoken with them."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .namespaces import Namespace

LINE_BYTES = 1 << 20
END_S = 5.0
LAST_LINES = 40

Message = dict[str, Any]


class ProgramError(RuntimeError):
    """A program ended or fell silent; the message holds its last lines on standard error."""


class Program:
    """A running program. What it prints on standard error is kept, the last lines of it, for error messages."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.errors: list[str] = []
        self._tasks = [asyncio.create_task(self._read_errors())]

    @classmethod
    async def start(
        cls, name: str, namespace: Namespace, argv: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> "Program":
        """Start argv inside the namespace. It is killed when this thread ends, so call from the main thread."""
        process = await asyncio.create_subprocess_exec(
            *namespace.enter(argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ) | dict(environment or {}),
            limit=LINE_BYTES,
        )
        return cls(name, process)

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors.append(line.decode(errors="replace").rstrip())
            del self.errors[:-LAST_LINES]

    def failure(self, what: str) -> ProgramError:
        """An exception about this program, with its last words."""
        return ProgramError("\n".join([f"{self.name}: {what}", *self.errors]))

    def check(self) -> None:
        """Raise when the program has ended."""
        if self.process.returncode is not None:
            raise self.failure(f"ended with {self.process.returncode}")

    async def stop(self) -> None:
        """End it: first politely, by the end of its input and SIGTERM, then for good."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):  # it may end in this very moment
                self.process.kill()
            await self.process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Speaker(Program):
    """A program that takes commands and tells events, one JSON object a line, each with an `id` that says for whom."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        super().__init__(name, process)
        self._listeners: dict[int, Callable[[Message], None]] = {}
        self._next_id = 0
        self._tasks.append(asyncio.create_task(self._read_events()))

    def listen(self, listener: Callable[[Message], None]) -> int:
        """Register for the events of a fresh id; returns the id."""
        self._next_id += 1
        self._listeners[self._next_id] = listener
        return self._next_id

    def forget(self, identity: int) -> None:
        """No more events of that id."""
        self._listeners.pop(identity, None)

    async def tell(self, message: Message) -> None:
        """Send one command."""
        self.check()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        try:
            await self.process.stdin.drain()
        except ConnectionError as error:
            raise self.failure("does not listen any more") from error

    async def _read_events(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                self.errors.append(f"not JSON: {line!r}")
                continue
            listener = self._listeners.get(message.get("id"))
            if listener is not None:
                listener(message)
            elif message.get("event") == "error":
                self.errors.append(str(message.get("what")))
        for listener in list(self._listeners.values()):
            listener({"event": "gone"})
