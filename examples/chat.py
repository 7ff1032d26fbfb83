"""A chat room: who knows its name reads and writes, also what was said while they were away.

python examples/chat.py ROOM NAME HOST:PORT HOST:PORT

Lines typed are said; /name TEXT tells one person alone, without the room.
"""

from terminal import lines, run

from srpnode import Encryption, Message, Peer, Subcluster, UnreachableError, network


class Room:
    """Everything that is said goes to `show`."""

    def __init__(self, room: Subcluster, name: str) -> None:
        self.room = room
        self.name = name
        self.people: dict[str, Peer] = {}
        room.on("said", self.said)
        room.on("#join", self.joined)
        room.on("#leave", self.left)

    def show(self, text: str) -> None:
        print(text, flush=True)

    def said(self, message: Message) -> None:
        if message.verified:
            said = message.json()
            self.show(f"{said['name']}: {said['text']}")

    async def joined(self, peer: Peer) -> None:
        peer.on("name", lambda message: self.named(peer, message))
        peer.on("whisper", lambda message: self.show(f"({self.who(peer)}): {message.decode()}"))
        await peer.emit("name", self.name)

    def named(self, peer: Peer, message: Message) -> None:
        name = message.decode()
        if name not in self.people:
            self.show(f"* {name} is here")
        self.people[name] = peer

    def left(self, peer: Peer) -> None:
        for name in [name for name, known in self.people.items() if known is peer]:
            del self.people[name]
            self.show(f"* {name} left")

    def who(self, peer: Peer) -> str:
        return next((name for name, known in self.people.items() if known is peer), peer.peer_id[:8])

    async def say(self, line: str) -> None:
        if not line.startswith("/"):
            await self.room.emit("said", {"name": self.name, "text": line})
            return
        name, _, text = line[1:].partition(" ")
        if name not in self.people:
            self.show(f"* nobody here is called {name}")
            return
        try:
            await self.people[name].emit("whisper", text)
        except UnreachableError as error:
            self.show(f"* {error}")


async def main(room_name: str, name: str, *peers: str) -> None:
    async with await network(cluster_id=Encryption.create_cluster_id("srpnode chat"), peers=peers) as net:
        room = Room(await net.subcluster(Encryption.create_shared_key(room_name)), name)
        info = await net.ready()
        room.show(f"* at {info.address}:{info.port}")
        async for line in lines():
            await room.say(line)


if __name__ == "__main__":
    run(main, __doc__, 4)
