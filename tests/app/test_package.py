"""The Debian package on a Debian that was booted with systemd: an operator's first and worst days, in this order.

Needs root, `make machine` and `make deb` (make test does both). One machine for all of them: each test finds what the
one before left.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from srpnode import journal
from tests.app.machine import IMAGE, ROOT, Machine, MachineError
from tests.interop import reference
from tests.node import node

DEADLINE_S = 60.0
CONF = "/etc/srpnode.toml"


def package() -> Path:
    found = sorted(ROOT.glob("dist/srpnode_*.deb"))
    return found[0] if found else ROOT / "dist/none"


def missing() -> str:
    """What a machine cannot be booted without, "" when all is here."""
    needs = {
        "booting a machine needs root": os.geteuid() == 0,
        "systemd-nspawn is not installed": shutil.which("systemd-nspawn") is not None,
        "there is no image: make machine": IMAGE.exists(),
        "there is no package: make deb": package().exists(),
    }
    return next((reason for reason, here in needs.items() if not here), "")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    try:
        made = Machine()
    except MachineError as error:
        pytest.skip(f"no machine can be booted here: {error}")
    yield made
    made.close()


def install(machine: Machine, deb: Path) -> str:
    shutil.copy(deb, machine.path("/root/srpnode.deb"))
    return machine.run(
        "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--allow-downgrades", "/root/srpnode.deb"
    ).stdout


def show(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "srpnode", "--property", name, "--value").stdout.strip()


def wait_active(machine: Machine, *, other_than: str = "") -> str:
    """Waits until the service is active; its process id."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if show(machine, "ActiveState") == "active" and show(machine, "MainPID") not in ("0", other_than):
            return show(machine, "MainPID")
        time.sleep(0.1)
    raise AssertionError(machine.run("journalctl", "-u", "srpnode", "--no-pager", "-n", "40").stdout)


def entries(machine: Machine, kind: journal.Kind) -> list[dict[str, str]]:
    """Entries of one kind in the journal, oldest first."""
    said = machine.run("journalctl", "-o", "json", "--no-pager", f"MESSAGE_ID={kind.message_id}").stdout
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


class Pinging:
    """Pings in the machine's network while something happens to the node."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        words = machine.network(sys.executable, "-m", "tests.app.pinger", "3511", str(seconds), "200")
        self._process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        time.sleep(1.0)

    def result(self) -> dict[str, float]:
        said, _ = self._process.communicate(timeout=DEADLINE_S)
        answered: dict[str, float] = json.loads(said)
        return answered


def test_install_starts_a_healthy_node(machine: Machine) -> None:
    install(machine, package())
    wait_active(machine)
    assert show(machine, "UnitFileState") == "enabled"
    assert machine.run("srpnode", "check").stdout.strip() == f"fine: {CONF}"
    ready = entries(machine, journal.READY)[-1]
    assert (ready["SRPNODE_EVENT"], ready["PRIORITY"], ready["SYSLOG_IDENTIFIER"]) == ("ready", "5", "srpnode")
    told = {entry["SRPNODE_PEER"] for entry in entries(machine, journal.IDENTITY)}
    info = json.loads(machine.run("srpnode", "info", "--json").stdout)
    assert told == {entry["peerId"] for entry in info}
    assert [(entry["port"], entry["probePort"]) for entry in info] == [(3511, 3513), (3512, 3514)]
    assert "peers" in show(machine, "StatusText")
    assert int(show(machine, "FDStore") or show(machine, "NFileDescriptorStore")) == 4


def test_files_belong_to_whom_they_should(machine: Machine) -> None:
    said = machine.run(
        "stat", "-c", "%a %U %G %n", "/var/lib/srpnode", "/var/lib/srpnode/a.key", "/run/srpnode/control.sock"
    )
    assert said.stdout.split("\n")[:3] == [
        "700 srpnode srpnode /var/lib/srpnode",
        "600 srpnode srpnode /var/lib/srpnode/a.key",
        "660 srpnode srpnode /run/srpnode/control.sock",
    ]
    machine.run("test", "-f", "/usr/share/man/man8/srpnode.8.gz")
    assert "draft" in machine.run("srpnode", "sim", "--help").stdout  # a shipped scenario
    assert "srpnode" in machine.run("cat", "/etc/ufw/applications.d/srpnode").stdout


def test_exposure(machine: Machine) -> None:
    said = machine.run("systemd-analyze", "security", "--no-pager", "srpnode").stdout
    found = re.search(r"Overall exposure level for srpnode.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= 1.2


def test_it_answers_from_outside(machine: Machine) -> None:
    result = Pinging(machine, 1.0).result()
    assert result["answered"] == result["sent"] > 0


def test_figures_are_served_in_the_sandbox(machine: Machine) -> None:
    program = 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:9511/metrics", timeout=60).read().decode())'
    done = subprocess.run(machine.network(sys.executable, "-c", program), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert 'srpnode_received_total{identity="a",type="ping"}' in done.stdout
    assert 'srpnode_handling_seconds_bucket{identity="b",le="+Inf"}' in done.stdout


def test_reference_peers_meet_through_it(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "node"
    inside.write_text(f'#!/bin/sh\nexec {shlex.join(machine.network(node()))} "$@"\n')
    inside.chmod(0o755)
    monkeypatch.setattr(reference, "node", lambda: str(inside))
    info = json.loads(machine.run("srpnode", "info", "--json").stdout)
    nodes = [
        reference.Entry(entry["name"], entry["address"], entry["port"], entry["probePort"], entry["peerId"])
        for entry in info
    ]
    process = reference.ReferenceProcess()
    try:
        one, other = (
            reference.Client(process, name, f"127.50.0.{number}", nodes) for number, name in ((1, "x"), (2, "y"))
        )
        for client in (one, other):
            client.ready()
            client.join("subcluster")
        one.wait_join(other)
        other.wait_join(one)
        assert process.errors() == []
    finally:
        process.close()
    figures = json.loads(machine.run("srpnode", "status", "--json").stdout)
    assert sum(identity["events"]["introductions"] for identity in figures["identities"]) >= 1


def test_reload_takes_over_and_a_bad_edit_changes_nothing(machine: Machine) -> None:
    pid = show(machine, "MainPID")
    conf = machine.path(CONF)
    conf.write_text(conf.read_text().replace("#replicated_per_minute = 1024", "replicated_per_minute = 99"))
    machine.run("systemctl", "reload", "srpnode")
    assert "limits.replicated_per_minute" in entries(machine, journal.RELOADED)[-1]["MESSAGE"]
    good = conf.read_text()
    conf.write_text(good.replace("replicated_per_minute = 99", "replicated_per_minutes = 99"))
    assert machine.run("systemctl", "reload", "srpnode", check=False).returncode == 1
    said = machine.run("journalctl", "-u", "srpnode", "--no-pager", "-n", "5").stdout
    assert f"{CONF}:" in said
    assert "nearest known one is limits.replicated_per_minute" in said
    assert (show(machine, "ActiveState"), show(machine, "MainPID")) == ("active", pid)
    machine.run("systemctl", "restart", "srpnode", check=False)  # ExecStartPre refuses it
    assert show(machine, "ActiveState") != "active"
    conf.write_text(good)
    machine.run("systemctl", "restart", "srpnode")
    wait_active(machine, other_than=pid)


def test_a_restart_loses_no_datagram(machine: Machine) -> None:
    pid = wait_active(machine)
    pinging = Pinging(machine, 4.0)
    machine.run("systemctl", "restart", "srpnode")
    assert wait_active(machine, other_than=pid)
    result = pinging.result()
    assert result["answered"] == result["sent"] >= 400, result


def test_a_crash_loses_no_datagram_that_was_still_in_the_socket(machine: Machine) -> None:
    pid = wait_active(machine)
    info = machine.run("srpnode", "info", "--json").stdout
    pinging = Pinging(machine, 4.0)
    machine.run("kill", "-KILL", pid)
    assert wait_active(machine, other_than=pid)
    result = pinging.result()
    assert result["answered"] >= result["sent"] - 2, result  # at most what was being handled at that moment
    assert machine.run("srpnode", "info", "--json").stdout == info


def test_the_watchdog_revives_a_node_that_stands_still(machine: Machine) -> None:
    pid = wait_active(machine)
    machine.run("kill", "-STOP", pid)
    wait_active(machine, other_than=pid)
    assert "Watchdog timeout" in machine.run("journalctl", "-u", "srpnode", "--no-pager", "-n", "30").stdout
    assert Pinging(machine, 0.5).result()["answered"] > 0


def test_stop_means_stop(machine: Machine) -> None:
    machine.run("systemctl", "stop", "srpnode")
    assert "3511" not in subprocess.run(machine.network("ss", "-uln"), capture_output=True, text=True).stdout
    assert machine.run("srpnode", "ping", "-n", "1", "127.0.0.1:3511", check=False).returncode == 1
    stops = entries(machine, journal.STOP)
    assert "SIGTERM" in stops[-1]["MESSAGE"]
    machine.run("systemctl", "start", "srpnode")
    wait_active(machine)


def test_upgrade_keeps_identity_configuration_and_enabledness(machine: Machine, tmp_path: Path) -> None:
    info = machine.run("srpnode", "info", "--json").stdout
    conf = machine.path(CONF).read_text()
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "-R", str(package()), str(tree)], check=True, timeout=60)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", "Version: 99.0", control.read_text(), flags=re.M))
    newer = tmp_path / "newer.deb"
    subprocess.run(["dpkg-deb", "-b", str(tree), str(newer)], check=True, timeout=60, capture_output=True)
    pid = wait_active(machine)
    machine.run("systemctl", "disable", "srpnode")
    install(machine, newer)
    wait_active(machine, other_than=pid)
    assert show(machine, "UnitFileState") == "disabled"
    assert machine.run("srpnode", "info", "--json").stdout == info
    assert machine.path(CONF).read_text() == conf
    machine.run("systemctl", "enable", "srpnode")


def test_remove_keeps_state_purge_deletes_it(machine: Machine) -> None:
    info = machine.run("srpnode", "info", "--json").stdout
    machine.run("DEBIAN_FRONTEND=noninteractive", "apt-get", "remove", "-y", "srpnode")
    assert show(machine, "ActiveState") == "inactive"
    machine.run("test", "-f", "/var/lib/srpnode/a.key")
    machine.run("test", "-f", CONF)
    install(machine, package())
    wait_active(machine)
    assert machine.run("srpnode", "info", "--json").stdout == info
    machine.run("DEBIAN_FRONTEND=noninteractive", "apt-get", "purge", "-y", "srpnode")
    for path in ("/var/lib/srpnode", CONF, "/run/srpnode", "/usr/bin/srpnode"):
        assert machine.run("test", "-e", path, check=False).returncode == 1, path
