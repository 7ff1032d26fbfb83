"""Who is here: one line whenever somebody comes, changes state or goes.

python examples/presence.py TEAM NAME HOST:PORT HOST:PORT      lines typed are the new state: busy, at lunch, …
"""

import asyncio
import contextlib
import time

from terminal import lines, run

from srpnode import Encryption, Message, Peer, network

TTL_S = 60.0  # states are of no interest later
AGAIN_S = 20.0


class Presence:
    """States by the signing key of the person: nobody can speak for another."""

    def __init__(self) -> None:
        self.states: dict[bytes, tuple[str, str, float]] = {}

    def heard(self, message: Message) -> None:
        if not message.verified:
            return
        said = message.json()
        before = self.states.get(message.public_key)
        if before is not None and before[2] >= said["at"]:
            return  # an older state that came later
        self.states[message.public_key] = (said["name"], said["state"], said["at"])
        if before is None or before[1] != said["state"]:
            print(f"{said['name']}: {said['state']}", flush=True)


async def main(team: str, name: str, *peers: str) -> None:
    presence = Presence()
    state = "here"
    changed = asyncio.Event()

    async def typed() -> None:
        nonlocal state
        async for line in lines():
            state = line.strip() or "here"
            changed.set()

    async with await network(cluster_id=Encryption.create_cluster_id("srpnode presence"), peers=peers) as net:
        room = await net.subcluster(Encryption.create_shared_key(team))
        room.on("state", presence.heard)

        @room.on("#join")
        def joined(peer: Peer) -> None:
            changed.set()  # tell the new one at once

        await net.ready()
        typing = asyncio.create_task(typed())
        typing.add_done_callback(lambda _: changed.set())
        try:
            while not typing.done():
                changed.clear()
                await room.emit("state", {"name": name, "state": state, "at": time.time()}, ttl_s=TTL_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await changed.wait()
            await room.emit("state", {"name": name, "state": "gone", "at": time.time()}, ttl_s=TTL_S)
        finally:
            typing.cancel()


if __name__ == "__main__":
    run(main, __doc__, 4)
