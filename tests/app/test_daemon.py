"""The running node through the real command: start, questions, reload, refusals, stop."""

import contextlib
import json
import os
import pty
import signal
import socket
import time
import urllib.request
from collections.abc import Callable

import pytest

from srpnode.core import codec
from tests.app.command import EXECUTABLE, srpnode
from tests.app.node import DEADLINE_S, Node
from tests.interop import datagram
from tests.interop.raw import RawPeer
from tests.interop.reference import Entry

MakeNode = Callable[[], Node]


def refused_start(node: Node) -> str:
    """`srpnode run` must end with status 1 and one line; that line."""
    done = srpnode("run", "-c", str(node.file))
    assert (done.returncode, done.stdout) == (1, ""), done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_prints_the_entries_that_info_prints(node: Node) -> None:
    printed = json.loads("\n".join(line for line in node.lines if line[:1] in "[] "))
    assert printed == node.ask("info")
    a, b, a_probe, b_probe, _ = node.ports
    assert [
        (item["name"], item["address"], item["port"], item["probePort"], item["natType"], item["indexed"])
        for item in printed
    ] == [("a", "127.0.0.1", a, a_probe, 31, True), ("b", "127.0.0.1", b, b_probe, 31, True)]
    assert len({item["peerId"] for item in printed}) == 2
    keys = (node.directory / "state").glob("*.key")
    assert {key.read_text().split()[-1] for key in keys} == {item["peerId"] for item in printed}


def test_identities_survive_a_restart(node: Node) -> None:
    before = node.ask("info")
    assert node.end() == 0
    assert node.ask("info") == before  # also while it does not run
    node.start()
    assert node.ask("info") == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly(node: Node, number: signal.Signals) -> None:
    assert node.end(number) == 0
    assert number.name in node.lines[-1]
    assert not (node.directory / "control.sock").exists()
    assert sorted(os.listdir(node.directory / "state")) == ["a.key", "a.peers", "b.key", "b.peers", "lock", "volume.json"]


def test_answers_pings_on_both_main_ports(node: Node) -> None:
    for entry in node.ask("info"):
        done = srpnode("ping", "--json", "-n", "2", f"127.0.0.1:{entry['port']}", check=True)
        result = json.loads(done.stdout)
        assert (result["sent"], result["received"], result["peerId"]) == (2, 2, entry["peerId"])
        assert result["seenAs"].startswith("127.0.0.1:")
    lines = srpnode("ping", "-n", "1", f"localhost:{node.ports[0]}", check=True).stdout.splitlines()
    assert "sees us at 127.0.0.1:" in lines[0]
    assert lines[1].startswith("1 sent, 1 answered")


def test_a_ping_that_nobody_answers_fails(node: Node) -> None:
    node.end()
    done = srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}")
    assert (done.returncode, "Connection refused" in done.stdout) == (1, True)
    done = srpnode("ping", "no-such-host.invalid:1")
    assert (done.returncode, "no-such-host.invalid: " in done.stderr) == (1, True)


def test_status_peers_and_metrics(node: Node) -> None:
    srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}", check=True)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"garbage", ("127.0.0.1", node.ports[0]))
    srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}", check=True)  # one queue: what was sent before is handled
    status = node.ask("status")
    first = status["identities"][0]
    assert first["received"]["ping"] >= 2
    assert first["sent"]["pong"] >= 2
    assert first["drops"]["short"] + first["drops"]["magic"] == 1
    assert first["cache"]["max_bytes"] == 16_000_000
    text = srpnode("status", "-c", str(node.file), check=True).stdout
    assert f"process {status['pid']}" in text
    assert first["peerId"] in text
    siblings = node.ask("peers")
    assert {(row["identity"], row["port"]) for row in siblings} >= {("a", node.ports[1]), ("b", node.ports[0])}
    assert "STATE" in srpnode("peers", "-c", str(node.file), check=True).stdout
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports[4]}/metrics", timeout=DEADLINE_S) as answer:
        page = answer.read().decode()
    assert 'srpnode_dropped_total{identity="a",reason="short"} ' in page


def test_reload_applies_all_or_nothing(node: Node) -> None:
    node.write("[limits]", "replicated_per_minute = 5", "[log]", 'level = "debug"', top="keep_alive = 20")
    assert node.ask("reload") == {"applied": ["limits.replicated_per_minute", "log.level"], "restart": ["keep_alive"]}
    assert "keep_alive" in node.wait_for("reloaded: ")
    node.write("[limits]", "replicated_per_minute = 6", "peers = -1")
    before = node.file.read_text()
    done = srpnode("reload", "-c", str(node.file))
    assert done.returncode == 1
    assert "limits.peers" in done.stderr
    assert node.file.read_text() == before
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)  # not by the command, which sees the error itself
    assert "limits.peers" in node.wait_for("reload-refused: ")
    node.write("[limits]", "replicated_per_minute = 5", "[log]", 'level = "debug"', top="keep_alive = 20")
    assert node.ask("reload") == {"applied": [], "restart": ["keep_alive"]}  # the 6 was never taken over


def test_a_changed_control_socket_is_still_found(node: Node) -> None:
    text = node.file.read_text()
    node.file.write_text(text.replace("control.sock", "other.sock"))
    assert node.ask("reload") == {"applied": [], "restart": ["control.socket"]}
    assert node.ask("status")["uptime"] > 0
    assert node.end() == 0
    done = srpnode("status", "-c", str(node.file))
    assert f"{node.directory}/other.sock: no srpnode is running" in done.stderr
    node.start()
    assert (node.directory / "other.sock").exists()


def test_reloaded_rules_refuse_and_allow_again(node: Node) -> None:
    port = node.ports[0]
    node.write("[access]", 'deny_prefixes = ["127.0.0.0/8"]')
    assert node.ask("reload")["applied"] == ["access.deny_prefixes"]
    assert srpnode("ping", "-n", "1", f"127.0.0.1:{port}").returncode == 1
    assert node.ask("status")["identities"][0]["drops"]["denied_prefix"] >= 1
    node.write()
    assert node.ask("reload")["applied"] == ["access.deny_prefixes"]
    assert srpnode("ping", "-n", "1", f"127.0.0.1:{port}").returncode == 0


def test_what_one_peer_is_sent_is_limited_and_counted(node: Node) -> None:
    """limits.peer_out_bytes_per_second, taken over by a reload: the packet is dropped for its receiver, and counted."""
    first = node.ask("info")[0]
    entry = Entry(first["name"], first["address"], first["port"], first["probePort"], first["peerId"])
    publisher, receiver = RawPeer("127.0.0.1"), RawPeer("127.0.0.1")
    cluster = bytes(range(32))

    def publish(text: bytes) -> None:
        packet = datagram.Packet(datagram.PUBLISH, hops=1, cluster_id=cluster, packet_id=os.urandom(32), message=text)
        publisher.send(packet, entry)

    def dropped() -> int:
        count: int = node.ask("status")["identities"][0]["drops"]["peer_bandwidth"]
        return count

    try:
        for peer in (publisher, receiver):
            peer.connect(entry, cluster_id=cluster)
        node.write("[limits]", "peer_out_bytes_per_second = 1")
        assert node.ask("reload")["applied"] == ["limits.peer_out_bytes_per_second"]
        before = dropped()
        publish(b"too much")
        publisher.ping(entry)
        assert dropped() > before
        node.write()
        node.ask("reload")
        publish(b"enough")
        receiver.wait(lambda item: item.packet.message == b"enough", "the packet")
    finally:
        publisher.close()
        receiver.close()


def test_a_taken_port_names_itself_and_its_holder(make_node: MakeNode) -> None:
    node = make_node()
    node.write()
    for what in (0, 2):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", node.ports[what]))
            said = refused_start(node)
            assert f"port {node.ports[what]} " in said
            assert f"pid {os.getpid()}" in said


def test_two_nodes_cannot_share_state_control_or_metrics(node: Node, make_node: MakeNode) -> None:
    other = make_node()
    assert node.process is not None

    def mixed(*names: str) -> None:
        other.write()
        text = other.file.read_text()
        for name in names:
            text = text.replace(f"{other.directory}/{name}", f"{node.directory}/{name}")
        other.file.write_text(text)

    mixed("state")
    assert f"process {node.process.pid}" in refused_start(other)
    mixed("control.sock")
    assert "another srpnode serves it" in refused_start(other)
    other.ports[4] = node.ports[4]
    mixed()
    assert f"TCP port {node.ports[4]} " in refused_start(other)
    assert node.ask("status")["pid"] == node.process.pid


def test_an_address_of_nobody_and_a_place_without_room(make_node: MakeNode) -> None:
    node = make_node()
    node.write()
    text = node.file.read_text()
    node.file.write_text(text.replace('address = "127.0.0.1"', 'address = "203.0.113.1"', 1))
    assert "no interface of this machine has the address 203.0.113.1" in refused_start(node)
    node.file.write_text(text.replace(f"{node.directory}/control.sock", "/proc/none/control.sock"))
    assert "/proc/none/control.sock: control socket cannot be made" in refused_start(node)
    node.file.write_text(text.replace(f"{node.directory}/state", "/proc/none/state"))
    assert "/proc/none/state: cannot be made" in refused_start(node)


def test_the_advertised_address_is_told(make_node: MakeNode) -> None:
    node = make_node()
    node.write()
    text = node.file.read_text()
    node.file.write_text(text.replace("[[listen]]", '[[listen]]\nadvertise = "198.51.100.7"', 1))
    assert [entry["address"] for entry in node.ask("info")] == ["198.51.100.7", "127.0.0.1"]
    node.start()
    assert [entry["address"] for entry in node.ask("info")] == ["198.51.100.7", "127.0.0.1"]
    node.file.write_text(text)
    assert node.ask("reload") == {"applied": ["listen.a.advertise"], "restart": []}
    assert "127.0.0.1" in node.wait_for("advertised address is now")


def test_nat_auto_finds_its_type_through_two_others(make_node: MakeNode) -> None:
    peers = []
    for _ in range(2):
        other = make_node()
        other.write()
        other.start()
        entry = other.ask("info")[0]
        peers.append(f'[[peer]]\naddress = "127.0.0.1"\nport = {entry["port"]}\npeer_id = "{entry["peerId"]}"')
    node = make_node()
    node.write(*peers)
    node.file.write_text(node.file.read_text().replace("[[listen]]", '[[listen]]\nnat = "auto"'))
    node.start()
    node.wait_for("b: NAT type 31, unrestricted")
    deadline = time.monotonic() + DEADLINE_S
    while [entry["natType"] for entry in node.ask("info")] != [31, 31]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [item["natType"] for item in node.ask("status")["identities"]] == [31, 31]
    assert srpnode("status", "-c", str(node.file), check=True).stdout.count("NAT unrestricted") == 2


def test_any_datagram_leaves_it_serving(node: Node) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        for port in node.ports[:4]:
            for size in (0, 1, 4, 45, 87, 1421, 1422, 9000, 65507):
                for data in (os.urandom(size), b"\x03\x05\x0b\x11" + os.urandom(max(size - 4, 0))[: 65507 - 4]):
                    sock.sendto(data[:65507], ("127.0.0.1", port))
    for port in node.ports[:2]:
        assert srpnode("ping", "-n", "1", f"127.0.0.1:{port}").returncode == 0
    assert node.end() == 0


def test_questions_without_a_node(make_node: MakeNode) -> None:
    node = make_node()
    node.write()
    for command in ("status", "peers", "reload"):
        done = srpnode(command, "-c", str(node.file))
        assert (done.returncode, done.stdout) == (1, "")
        assert "no srpnode is running" in done.stderr


def test_blocks_are_listed_and_end(node: Node) -> None:
    config = ("-c", str(node.file))
    assert srpnode("block", "nonsense", *config).returncode == 1
    assert srpnode("block", "10.0.0.1/8", *config).returncode == 1
    srpnode("block", "10.0.0.0/8", "--for", "100", *config, check=True)
    srpnode("block", "F" * 64, *config, check=True)
    rows = node.ask("blocks")
    assert [row["what"] for row in rows] == ["10.0.0.0/8", "f" * 64]
    assert 0 < rows[0]["seconds"] <= 100
    assert node.end() == 0
    node.start()
    assert [row["what"] for row in node.ask("blocks")] == ["10.0.0.0/8", "f" * 64]
    srpnode("unblock", "10.0.0.0/8", *config, check=True)
    assert srpnode("unblock", "10.0.0.0/8", *config).returncode == 1
    assert len(node.ask("blocks")) == 1


def test_a_block_refuses_and_expires(node: Node) -> None:
    port = node.ports[0]
    srpnode("block", "127.0.0.1", "--for", "3", "-c", str(node.file), check=True)
    assert srpnode("ping", "-n", "1", f"127.0.0.1:{port}").returncode == 1
    deadline = time.monotonic() + DEADLINE_S
    while srpnode("ping", "-n", "1", f"127.0.0.1:{port}").returncode != 0:
        assert time.monotonic() < deadline
    assert node.ask("blocks") == []


def test_damaged_state_files_are_put_aside(make_node: MakeNode) -> None:
    node = make_node()
    node.write()
    node.start()
    node.end()
    state = node.directory / "state"
    for name in ("volume", "blocks"):
        (state / f"{name}.json").write_bytes(b'{"version": 1, "kind": "' + name.encode() + b'", "data": ["\xff')
    node.start()
    assert node.ask("status")["volume"]["used"] >= 0
    aside = sorted(item.name.partition(".corrupt-")[0] for item in state.glob("*.corrupt-*"))
    assert aside == ["blocks.json", "volume.json"]
    assert sum("put aside" in line for line in node.lines) == 2


@pytest.mark.parametrize("action", ["warn", "throttle", "refuse"])
def test_the_monthly_volume(make_node: MakeNode, action: str) -> None:
    node = make_node()
    node.write("[limits]", "volume_bytes_per_month = 2000", f'volume_action = "{action}"')
    node.start()
    port = node.ports[0]
    ping = codec.encode(codec.PING, message=codec.write_message(codec.PING, {"requesterPeerId": "ab" * 32}))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for _ in range(40):
            sock.sendto(ping, ("127.0.0.1", port))
    assert "used up" in node.wait_for("used up")
    refused = srpnode("ping", "-n", "1", f"127.0.0.1:{port}").returncode != 0
    assert refused == (action == "refuse")
    assert node.end() == 0
    node.start()  # the sum survives
    assert node.ask("status")["volume"]["used"] > 2000
    node.write()
    node.ask("reload")
    assert srpnode("ping", "-n", "1", f"127.0.0.1:{port}").returncode == 0


def test_doctor_finds_and_suggests(node: Node, make_node: MakeNode) -> None:
    other = make_node()
    other.write()
    other.start()
    done = srpnode("doctor", "--json", "-c", str(node.file), "--via", f"127.0.0.1:{other.ports[0]}")
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert findings["node"]["state"] == "fine"
    assert findings["a: address"]["text"] == "127.0.0.1, as others see it"
    assert findings["a: reachable"]["state"] == findings["b: reachable"]["state"] == "fine"
    text = node.file.read_text()
    node.file.write_text(text.replace("[[listen]]", '[[listen]]\nadvertise = "198.51.100.7"', 1))
    node.ask("reload")
    done = srpnode("doctor", "-c", str(node.file), "--via", f"127.0.0.1:{other.ports[0]}")
    assert done.returncode == 0 or 'set advertise = "127.0.0.1"' in done.stdout
    node.end()
    done = srpnode("doctor", "-c", str(node.file))
    assert done.returncode == 1
    assert "no srpnode is running" in done.stdout
    node.file.write_text("pears = 1\n")
    done = srpnode("doctor", "-c", str(node.file))
    assert done.returncode == 1
    assert f"{node.file}:1: pears: unknown key" in done.stdout


def test_top_draws_frames(node: Node) -> None:
    srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}", check=True)
    done = srpnode("top", "-n", "2", "-c", str(node.file), check=True)
    first, second = done.stdout.split("\n\nsrpnode ", 1)
    for word in ("packets in", "IDENTITY", "DROPPED FOR", "PEERS BY NAT TYPE", "CLUSTER"):
        assert word in first
        assert word in second
    assert "ping" in second
    figures = json.loads(srpnode("top", "--json", "-c", str(node.file), check=True).stdout)
    assert figures["natTypes"]


def test_top_on_a_terminal_ends_with_q_and_tidies_up(node: Node) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(EXECUTABLE, [EXECUTABLE, "top", "-c", str(node.file)])
    got = b""
    deadline = time.monotonic() + DEADLINE_S
    while b"NAT TYPE" not in got and time.monotonic() < deadline:
        got += os.read(terminal, 65_536)
    os.write(terminal, b"q")
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65_536):
            got += piece
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert got.startswith(b"\x1b[?1049h")
    assert got.endswith(b"\x1b[?25h\x1b[?1049l")
