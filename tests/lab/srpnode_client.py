"""The Python peer as a client under test: an application that joins one subcluster. It speaks as clients.py says.

python -m tests.lab.srpnode_client
"""

import asyncio
import json
import sys
import time
from typing import Any

from srpnode import Encryption, Info, Message, Network, Peer, UnreachableError, network

EVENT = "lab"


def tell(number: int, event: str, **more: Any) -> None:
    """One line to the laboratory."""
    print(json.dumps({"event": event, "id": number, "atNs": time.monotonic_ns(), **more}), flush=True)


class Run:
    """One peer."""

    def __init__(self, number: int, command: dict[str, Any]) -> None:
        self.number = number
        self.command = command
        self.net: Network | None = None
        self.met: list[Peer] = []

    async def start(self) -> None:
        """Begin; all else is told as it happens."""
        command = self.command
        options = {"keep_alive_s": command["keepAliveMs"] / 1000} if "keepAliveMs" in command else {}
        self.net = await network(
            cluster_id=Encryption.create_cluster_id(command["cluster"]), peers=command["introducers"], **options
        )
        tell(self.number, "up", peerId=self.net.peer_id)
        self.net.on("#ready", self._ready)
        sub = await self.net.subcluster(Encryption.create_shared_key(command["subcluster"]))
        sub.on("#join", self._joined)
        sub.on(EVENT, self._message)

    def _ready(self, info: Info) -> None:
        tell(self.number, "ready", natType=info.nat_type, address=info.address, port=info.port)

    def _joined(self, peer: Peer) -> None:
        self.met.append(peer)
        tell(self.number, "join", peerId=peer.peer_id, address=peer.address, port=peer.port, proxy=not peer.direct)

    def _message(self, message: Message) -> None:
        address, port = message.source
        tell(self.number, "message", peerId=message.peer_id, text=message.decode(), address=address, port=port)

    async def send(self, text: str) -> None:
        """A text to every peer met."""
        for peer in self.met:
            try:
                await peer.emit(EVENT, text)
            except UnreachableError as error:
                tell(self.number, "error", what=str(error))

    async def stop(self) -> None:
        """End the peer."""
        if self.net is not None:
            await self.net.close()
        tell(self.number, "stopped")


async def main() -> None:
    """Serve commands until standard input ends."""
    runs: dict[int, Run] = {}
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        command = json.loads(line)
        number = command["id"]
        match command["do"]:
            case "start":
                runs[number] = Run(number, command)
                await runs[number].start()
            case "send":
                await runs[number].send(command["text"])
            case "stop":
                await runs.pop(number).stop()
    for run in runs.values():
        await run.stop()


asyncio.run(main())
