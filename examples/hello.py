"""The hello world of the protocol's draft, line for line. Run it twice.

python examples/hello.py HOST:PORT HOST:PORT
"""

import asyncio
import contextlib
import sys

from srpnode import Encryption, network


async def main(peers: list[str]) -> None:
    peer_id = Encryption.create_id()
    signing_keys = Encryption.create_key_pair()
    cluster_id = Encryption.create_cluster_id("TEST")
    socket = await network(peer_id=peer_id, cluster_id=cluster_id, signing_keys=signing_keys, peers=peers)

    shared_key = Encryption.create_shared_key("greetings")
    greetings = await socket.subcluster(shared_key=shared_key)

    # A published message on this subcluster has arrived!
    greetings.on("hello, world", lambda value: print(value.json(), flush=True))

    # A message will be published into this subcluster
    socket.on("#ready", lambda info: greetings.emit("hello, world", {"language": "english"}))

    # Another peer from this subcluster has directly connected to you.
    @greetings.on("#join")
    def join(peer):
        peer.on("hello, world", lambda value: print(value.json(), flush=True))

    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1:]))
