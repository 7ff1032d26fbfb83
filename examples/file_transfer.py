"""Sends a file to everybody who waits for it, from peer to peer: streams, with an acknowledgement for each part.

python examples/file_transfer.py get SECRET FILE HOST:PORT HOST:PORT      on one machine
python examples/file_transfer.py put SECRET FILE HOST:PORT HOST:PORT      on another: ends when somebody has it
"""

import asyncio
import hashlib
import sys
from pathlib import Path

from terminal import run

from srpnode import Encryption, Message, Network, Peer, Subcluster, UnreachableError, network

PART_BYTES = 50_000
AGAIN_S = 1.0  # a part that is not acknowledged is sent again
TRIES = 30


async def part_of(path: Path, number: int) -> bytes:
    def read() -> bytes:
        with path.open("rb") as file:
            file.seek(number * PART_BYTES)
            return file.read(PART_BYTES)

    return await asyncio.to_thread(read)


async def put(room: Subcluster, path: Path) -> None:
    """Sends the file to the first who asks for it."""
    asked = room.events("ask")
    size = path.stat().st_size
    parts = -(-size // PART_BYTES)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    async def offer() -> None:
        while True:  # who comes late hears the next one
            await room.stream("offer", {"size": size, "parts": parts, "sha256": digest})
            await asyncio.sleep(AGAIN_S)

    offering = asyncio.create_task(offer())
    try:
        async for message in asked:
            peer = room.peers.get(message.peer_id)
            number = message.json()["part"]
            if number == parts:
                return
            if peer is not None and 0 <= number < parts:
                data = number.to_bytes(4, "big") + await part_of(path, number)
                try:
                    await peer.emit("part", data)
                except UnreachableError:
                    continue  # it asks again, or is gone
                print(f"part {number + 1} of {parts} to {peer.peer_id[:8]}", file=sys.stderr)
    finally:
        offering.cancel()


async def get(room: Subcluster, path: Path) -> None:
    """Writes the file that somebody offers; raises ValueError when it is not what was offered."""
    offer: Message = await room.once("offer", timeout_s=None)
    wanted = offer.json()
    sender: Peer = room.peers[offer.peer_id]
    arriving = sender.events("part")
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(wanted["parts"]):
            data = await _fetch(sender, number, arriving)
            digest.update(data)
            await asyncio.to_thread(file.write, data)
    if digest.hexdigest() != wanted["sha256"]:
        raise ValueError("what came is not what was offered")
    for _ in range(3):  # thanks; the sender may go
        await sender.emit("ask", {"part": wanted["parts"]})
        await asyncio.sleep(0.05)
    print(f"{path}: {wanted['size']} bytes", file=sys.stderr)


async def _fetch(sender: Peer, number: int, arriving) -> bytes:
    for _ in range(TRIES):
        await sender.emit("ask", {"part": number})
        try:
            async with asyncio.timeout(AGAIN_S):
                async for message in arriving:
                    if int.from_bytes(message[:4], "big") == number:
                        return bytes(message[4:])
        except TimeoutError:
            continue
    raise UnreachableError(f"part {number} did not come after {TRIES} tries: is the sender still there?")


async def main(what: str, secret: str, file: str, *peers: str) -> None:
    if what not in ("put", "get"):
        raise ValueError(f"{what!r}: put or get")
    net: Network
    async with await network(cluster_id=Encryption.create_cluster_id("srpnode files"), peers=peers) as net:
        room = await net.subcluster(Encryption.create_shared_key(secret))
        await net.ready()
        await (put if what == "put" else get)(room, Path(file))


if __name__ == "__main__":
    run(main, __doc__, 5)
