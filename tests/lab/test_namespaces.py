"""Nothing of a world is visible outside, nothing inside reaches outside, and nothing survives."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .nat import NatKind
from .requirements import ROOT
from .world import INTRODUCERS, World

pytestmark = pytest.mark.usefixtures("laboratory")


def interfaces() -> set[str]:
    """The network interfaces of the namespace that the tests run in."""
    return {name for _, name in socket.if_nameindex()}


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answered(probe: socket.socket) -> bool:
    """Whether anything but an error comes back to a connected socket."""
    probe.settimeout(0.2)
    try:
        probe.send(b"x")
        probe.recv(1)
    except OSError:
        return False
    return True


def test_outside_sees_no_interface_and_inside_reaches_nothing_outside() -> None:
    before = interfaces()
    with World() as world:
        sites = [world.site(f"s{index}", kind) for index, kind in enumerate(NatKind)]
        assert interfaces() == before
        spaces = {os.readlink(f"/proc/{namespace.keeper.pid}/ns/net") for namespace in world.namespaces.all}
        assert len(spaces) == len(world.namespaces.all)
        assert os.readlink("/proc/self/ns/net") not in spaces
        for site in sites:
            for outside in ("192.0.2.1", "1.1.1.1"):
                with site.hosts[0].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    # A host behind a router sends to it, and there it ends; a host without one has no route at all.
                    assert probe.connect_ex((outside, 9)) != 0 or not answered(probe)
    assert interfaces() == before


def test_names_are_unique_and_shown() -> None:
    with World() as one, World() as other:
        labels = [namespace.label for world in (one, other) for namespace in world.namespaces.all]
        assert len(set(labels)) == len(labels)
        for world in (one, other):
            for namespace in world.namespaces.all:
                assert Path(f"/proc/{namespace.keeper.pid}/cmdline").read_text().startswith(namespace.label)


def test_close_ends_every_keeper() -> None:
    world = World()
    world.site("s", NatKind.DOUBLE)
    keepers = [namespace.keeper.pid for namespace in world.namespaces.all]
    assert all(map(alive, keepers))
    world.close()
    assert not any(map(alive, keepers))


def test_a_failed_site_leaves_nothing_after_the_world() -> None:
    with World() as world:
        keepers = [namespace.keeper.pid for namespace in world.namespaces.all]
        with pytest.raises(ValueError, match="one host"):
            world.site("s", NatKind.NONE, hosts=2)
    assert not any(map(alive, keepers))


KILLED = """
import asyncio, signal, os
from tests.lab.programs import Program
from tests.lab.world import World
from tests.lab.nat import NatKind

async def main():
    world = World()
    site = world.site("s", NatKind.SYMMETRIC)
    program = await Program.start("sleeper", site.hosts[0].namespace, ["sleep", "600"])
    print(*(n.keeper.pid for n in world.namespaces.all), program.process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_a_killed_runner(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True) as runner:
        try:
            assert runner.stdout is not None
            pids = [int(word) for word in runner.stdout.readline().split()]
            assert len(pids) == 5  # keepers of internet, introducers, router and host, and the program
            assert all(map(alive, pids))
            handles = [os.pidfd_open(pid) for pid in pids]
        finally:
            runner.send_signal(how)
        for pid, handle in zip(pids, handles, strict=True):
            assert ended(handle), f"process {pid} survived"
            os.close(handle)


def ended(handle: int) -> bool:
    """Wait until the process behind a pidfd has ended; False after ten seconds."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(10_000))


def test_the_two_introducer_addresses_are_reachable_from_every_site() -> None:
    with World() as world, world.introducers.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 3511))
        server.settimeout(5)
        for index, kind in enumerate(NatKind):
            site = world.site(f"s{index}", kind)
            for address in INTRODUCERS:
                with site.hosts[0].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(kind.encode(), (address, 3511))
                    data, source = server.recvfrom(100)
                    assert (data.decode(), source[0]) == (kind, site.address)
