"""The indexed peers that the clients know: reference peers, or one srpnode process with its two identities."""

import asyncio
import json
import secrets
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from ..node import node
from .clients import HERE, Known
from .namespaces import Namespace
from .programs import Message, Program, Speaker
from .requirements import missing_reference
from .world import INTERNET, INTRODUCERS, World

START_S = 15.0
NODE_KEEP_ALIVE_S = 30.0
PORTS = (3511, 3512)
PROBE_PORTS = (3513, 3514)
SRPNODE = Path(sys.executable).with_name("srpnode")
CHOICES = ("reference", "srpnode", "srpnode-one-address", "reference-one-address")


class Introducers(ABC):
    """Two indexed peers in a world. `fresh` starts them anew, with nothing remembered."""

    def __init__(self, world: World, addresses: Sequence[str]) -> None:
        self.namespace: Namespace = world.introducers
        self.addresses = addresses

    @abstractmethod
    async def fresh(self) -> list[Known]:
        """Stop what runs, start anew, and return when both listen."""

    @abstractmethod
    async def stop(self) -> None:
        """End them."""


class ReferenceIntroducers(Introducers):
    """Two reference peers with the flag `indexed`, in one Node process."""

    def __init__(self, world: World, addresses: Sequence[str]) -> None:
        super().__init__(world, addresses)
        self._speaker: Speaker | None = None
        self._run: int | None = None
        self._events: asyncio.Queue[Message] = asyncio.Queue()

    async def _expect(self, speaker: Speaker, event: str) -> None:
        try:
            async with asyncio.timeout(START_S):
                while (await self._events.get())["event"] != event:
                    speaker.check()
        except TimeoutError:
            raise speaker.failure(f"no event {event!r}") from None

    async def fresh(self) -> list[Known]:
        if self._speaker is None:
            command = [node(), str(HERE / "reference_introducer.mjs")]
            started = await Speaker.start("introducers", self.namespace, command, {"JSREF_NETS": str(INTERNET)})
            assert isinstance(started, Speaker)
            self._speaker = started
        speaker = self._speaker
        if self._run is not None:
            await speaker.tell({"do": "stop", "id": self._run})
            await self._expect(speaker, "stopped")
            speaker.forget(self._run)
        known = [Known(address, port, secrets.token_hex(32)) for address, port in zip(self.addresses, PORTS, strict=True)]
        self._run = speaker.listen(self._events.put_nowait)
        listen = [{"address": i.address, "port": i.port, "peerId": i.peer_id} for i in known]
        await speaker.tell({"do": "start", "id": self._run, "listen": listen})
        await self._expect(speaker, "up")
        return known

    async def stop(self) -> None:
        if self._speaker is not None:
            await self._speaker.stop()
            self._speaker = None


class SrpnodeIntroducers(Introducers):
    """One `srpnode run` process with two identities, configured as an operator would."""

    def __init__(self, world: World, addresses: Sequence[str], keep_alive_s: float) -> None:
        super().__init__(world, addresses)
        self._keep_alive_s = keep_alive_s
        self._directory = tempfile.TemporaryDirectory(prefix="srplab-")
        self._file = Path(self._directory.name) / "srpnode.toml"
        self._file.write_text(self._configuration())
        self._known: list[Known] = []
        self._program: Program | None = None

    def _configuration(self) -> str:
        lines = [f'state_dir = "{self._directory.name}"', f"keep_alive = {self._keep_alive_s}"]
        for name, address, port, probe_port in zip("ab", self.addresses, PORTS, PROBE_PORTS, strict=True):
            lines += ["[[listen]]", f'name = "{name}"', f'address = "{address}"']
            lines += [f"port = {port}", f"probe_port = {probe_port}"]
        lines += ["[metrics]", 'listen = ""']
        lines += ["[control]", f'socket = "{self._directory.name}/control.sock"']
        return "\n".join(lines) + "\n"

    @staticmethod
    def command(*arguments: str) -> list[str]:
        """A command line of the srpnode that belongs to this Python."""
        return [str(SRPNODE), *arguments]

    def _listening(self) -> bool:
        """Whether both ports of both identities are bound."""
        table = Path(f"/proc/{self.namespace.keeper.pid}/net/udp").read_text()
        bound = {int(line.split()[1].split(":")[1], 16) for line in table.splitlines()[1:]}
        return bound >= {*PORTS, *PROBE_PORTS}

    async def fresh(self) -> list[Known]:
        await self._end()
        command = self.command("run", "-c", str(self._file))
        self._program = await Program.start("srpnode", self.namespace, command)
        deadline = time.monotonic() + START_S
        while not self._listening():
            self._program.check()
            if time.monotonic() > deadline:
                raise self._program.failure("does not listen on its ports")
            await asyncio.sleep(0.01)
        if not self._known:
            info = self.namespace.run(*self.command("info", "-c", str(self._file), "--json"))
            self._known = [Known(entry["address"], entry["port"], entry["peerId"]) for entry in json.loads(info)]
        return self._known

    async def _end(self) -> None:
        if self._program is not None:
            program, self._program = self._program, None
            await program.stop()

    async def stop(self) -> None:
        await self._end()
        self._directory.cleanup()


def missing(choice: str) -> str | None:
    """Why the introducers of that name cannot run here, or None."""
    if choice.startswith("reference"):
        return missing_reference()
    return None if SRPNODE.exists() else "no srpnode beside this Python: make build"


def introducers(choice: str, world: World, node_keep_alive_s: float = NODE_KEEP_ALIVE_S) -> Introducers:
    """The introducers of that name (one of CHOICES) for a world."""
    addresses = INTRODUCERS[:1] * 2 if choice.endswith("-one-address") else INTRODUCERS
    match choice.removesuffix("-one-address"):
        case "reference":
            return ReferenceIntroducers(world, addresses)
        case "srpnode":
            return SrpnodeIntroducers(world, addresses, node_keep_alive_s)
    raise ValueError(f"no introducers named {choice!r}, only {', '.join(CHOICES)}")
