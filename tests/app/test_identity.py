"""Identity keys: made once, kept, and never overwritten whatever is wrong with them."""

import multiprocessing
import os
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from srpnode import identity
from tests.app.command import srpnode


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one identity whose state stands in a directory of the test's own."""
    path = tmp_path / "srpnode.toml"
    path.write_text(
        f'state_dir = "{tmp_path}/state"\n[[listen]]\nport = 40001\n[metrics]\nlisten = ""\n'
        f'[control]\nsocket = "{tmp_path}/control.sock"\n'
    )
    return path


def test_made_once_with_the_right_modes(config: Path) -> None:
    first = srpnode("info", "--json", "-c", str(config), check=True).stdout
    assert srpnode("info", "--json", "-c", str(config), check=True).stdout == first
    state = config.parent / "state"
    assert os.listdir(state) == ["a.key"]
    assert (state.stat().st_mode & 0o777, (state / "a.key").stat().st_mode & 0o777) == (0o700, 0o600)
    made = identity.load(str(state / "a.key"), "a")
    assert SigningKey(made.seed).verify_key.encode() == made.peer_id
    assert made.peer_id.hex() in first
    assert made.seed.hex() not in repr(made)


DAMAGES = [
    pytest.param(lambda data: b"", "corrupt", id="empty"),
    pytest.param(lambda data: data[:100], "corrupt", id="cut"),
    pytest.param(lambda data: os.urandom(200), "corrupt", id="random bytes"),
    pytest.param(lambda data: data.replace(b"seed ", b"sead "), "corrupt", id="word"),
    pytest.param(lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:], "corrupt", id="one bit"),
    pytest.param(lambda data: data.replace(b"identity 1", b"identity 2"), "newer srpnode", id="newer version"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
@pytest.mark.parametrize("command", ["info", "run"])
def test_a_damaged_key_stops_the_start_and_stays(config: Path, damage: object, said: str, command: str) -> None:
    srpnode("info", "-c", str(config), check=True)
    path = config.parent / "state/a.key"
    assert callable(damage)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    done = srpnode(command, "-c", str(config))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(path) in done.stderr
    assert said in done.stderr
    assert path.read_bytes() == damaged


def test_a_key_open_to_others_is_refused(config: Path) -> None:
    srpnode("info", "-c", str(config), check=True)
    path = config.parent / "state/a.key"
    path.chmod(0o640)
    done = srpnode("run", "-c", str(config))
    assert (done.returncode, f"chmod 600 {path}" in done.stderr) == (1, True)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_key_that_cannot_be_read(config: Path) -> None:
    state = config.parent / "state"
    srpnode("info", "-c", str(config), check=True)
    key = state / "a.key"
    key.rename(state / "real")
    key.symlink_to("real")
    done = srpnode("run", "-c", str(config))
    assert (done.returncode, f"{key}: identity cannot be read" in done.stderr) == (1, True)
    key.unlink()
    key.mkdir()
    done = srpnode("run", "-c", str(config))
    assert (done.returncode, str(key) in done.stderr, key.is_dir()) == (1, True, True)


def test_a_state_directory_that_is_a_file_or_open_to_others(config: Path) -> None:
    state = config.parent / "state"
    state.write_text("")
    done = srpnode("run", "-c", str(config))
    assert (done.returncode, "not a directory" in done.stderr) == (1, True)
    state.unlink()
    state.mkdir()
    state.chmod(0o777)
    done = srpnode("run", "-c", str(config))
    assert (done.returncode, f"chmod 700 {state}" in done.stderr) == (1, True)
    assert os.listdir(state) == []


def test_a_full_disk_leaves_nothing_behind(config: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    state = config.parent / "state"
    state.mkdir(mode=0o700)
    script = (
        f"mount -t tmpfs -o size=4k,mode=700 none {state} && head -c 4096 /dev/zero > {state}/fill; "
        f"{Path(identity.__file__).parents[1]}/.venv/bin/srpnode info -c {config}; status=$?; ls {state}; exit $status"
    )
    import subprocess

    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    if "mount:" in done.stderr:
        pytest.skip("no mounts here")
    assert (done.returncode, "make room on the disk" in done.stderr) == (1, True), done
    assert done.stdout.split() == ["fill"]


def _make(state: str, results: "multiprocessing.SimpleQueue[bytes]") -> None:
    results.put(identity.load_or_make(state, "a").peer_id)


def test_two_at_once_make_one_key(tmp_path: Path) -> None:
    identity.prepare(str(tmp_path / "state"))
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=_make, args=(str(tmp_path / "state"), results)) for _ in range(4)]
    for process in processes:
        process.start()
    made = {results.get() for _ in processes}
    for process in processes:
        process.join()
    assert len(made) == 1
    assert os.listdir(tmp_path / "state") == ["a.key"]


def test_one_node_for_one_state_directory(tmp_path: Path) -> None:
    state = str(tmp_path)
    assert identity.running_control_socket(state) == ""
    with identity.lock(state, "/run/x.sock"):
        with (
            pytest.raises(identity.StateError, match=rf"process {os.getpid()}\)"),
            identity.lock(state, "/run/y.sock"),
        ):
            pass
        assert identity.running_control_socket(state) == "/run/x.sock"
    assert identity.running_control_socket(state) == ""
    with pytest.raises(ZeroDivisionError), identity.lock(state, "/run/z.sock"):
        raise ZeroDivisionError
    assert identity.running_control_socket(state) == ""
