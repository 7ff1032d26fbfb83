"""Bad configuration through the real command: one line FILE:LINE: key: reason for each fault, exit status 1."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpnode import config, schema
from tests.app.command import refused, srpnode

LINE = re.compile(r"(?P<file>/.+?):(?P<line>\d+): (?P<key>[A-Za-z_.\[\]]+): (?P<reason>.+)")

# text of the file, line of the fault, key named, part of the reason
FAULTS = [
    pytest.param('keep_alive = "fast"\n', 1, "keep_alive", "must be a number", id="wrong type"),
    pytest.param("keep_alive = true\n", 1, "keep_alive", "must be a number", id="boolean for a number"),
    pytest.param("keep_alive = 0.0\n", 1, "keep_alive", "from 0.1 to 3600", id="too small"),
    pytest.param("keep_alive = nan\n", 1, "keep_alive", "from 0.1 to 3600", id="not a number"),
    pytest.param("\n# x\nstate_dir = 5\n", 3, "state_dir", "must be a string", id="number for a string"),
    pytest.param('state_dir = ""\n', 1, "state_dir", "must be a path", id="empty path"),
    pytest.param("[[listen]]\nport = 0\n", 2, "listen.port", "1 to 65535", id="port 0"),
    pytest.param("[[listen]]\nport = 65536\n", 2, "listen.port", "1 to 65535", id="port 65536"),
    pytest.param("[[listen]]\nport = 3.5\n", 2, "listen.port", "must be an integer", id="port 3.5"),
    pytest.param(
        "[[listen]]\nport = 4000\nprobe_port = 4000\n", 3, "listen.probe_port", "4000 is already", id="probe = main"
    ),
    pytest.param(
        "[[listen]]\nport = 4000\n[[listen]]\nport = 4000\nprobe_port = 4003\n",
        4,
        "listen.port",
        "4000 is already the port of a",
        id="two listeners on one port",
    ),
    pytest.param(
        '[[listen]]\nport = 4000\n[[listen]]\naddress = "127.0.0.1"\nport = 4001\nprobe_port = 4002\n',
        6,
        "listen.probe_port",
        "4002 is already the probe_port of a",
        id="wildcard overlaps",
    ),
    pytest.param(
        '[[listen]]\nname = "x"\n[[listen]]\nname = "x"\n', 4, "listen.name", "also the name", id="one name twice"
    ),
    pytest.param('[[listen]]\nname = "a/b"\n', 2, "listen.name", "letters, digits", id="name that is a path"),
    pytest.param('[[listen]]\naddress = "::1"\n', 2, "listen.address", "must be an IPv4 address", id="IPv6"),
    pytest.param('[[listen]]\nadvertise = "0.0.0.0"\n', 2, "listen.advertise", "auto or an IPv4", id="advertise 0"),
    pytest.param('[[listen]]\nnat = "statik"\n', 2, "listen.nat", "did you mean static?", id="near choice"),
    pytest.param("[listen]\nport = 4000\n", 1, "listen", "[[listen]]", id="table for an array"),
    pytest.param("listen = []\n", 1, "listen", "at least one", id="no identity"),
    pytest.param("[[listen]]\n" * 17, 17, "listen", "more than 16", id="too many identities"),
    pytest.param('[[peer]]\naddress = "192.0.2.1"\nport = 1\n', 1, "peer.peer_id", "missing", id="required key"),
    pytest.param(
        f'[[peer]]\naddress = "192.0.2.1"\nport = 1\npeer_id = "{"g" * 64}"\n',
        4,
        "peer.peer_id",
        "64 hexadecimal digits",
        id="peerId",
    ),
    pytest.param("limits = 5\n", 1, "limits", "must be a table", id="number for a table"),
    pytest.param("[limits]\npeers = 0\n", 2, "limits.peers", "16 to 1_000_000", id="empty table size"),
    pytest.param("[limits]\nreplicated_per_minute = -1\n", 2, "limits.replicated_per_minute", "from 0", id="negative"),
    pytest.param("[limits]\nprivileged_ports = 1\n", 2, "limits.privileged_ports", "true or false", id="boolean"),
    pytest.param('[metrics]\nlisten = "9511"\n', 2, "metrics.listen", "ADDRESS:PORT", id="metrics"),
    pytest.param(f'[control]\nsocket = "/{"x" * 107}"\n', 2, "control.socket", "1 to 107 bytes", id="long socket"),
    pytest.param('[access]\ndeny_prefixes = ["10.0.0.1/8"]\n', 2, "access.deny_prefixes", "host bits", id="prefix"),
    pytest.param('[access]\nallow_clusters = ["ff"]\n', 2, "access.allow_clusters", "64 hexa", id="cluster"),
    pytest.param("[access]\nallow_clusters = [1]\n", 2, "access.allow_clusters", "a list of strings", id="list of int"),
    pytest.param("[limits]\npears = 3\n", 2, "limits.pears", "nearest known one is limits.peers", id="unknown key"),
    pytest.param("stat_dir = 1\n", 1, "stat_dir", "nearest known one is state_dir", id="unknown top key"),
    pytest.param("[cach]\nttl = 1\n", 1, "cach", "nearest known one is cache", id="unknown table"),
    pytest.param("peers = 500\n", 1, "peers", "nearest known one is limits.peers", id="key outside of its table"),
    pytest.param("a = 1 b = 2\n", 1, "a", "not a value", id="two on a line"),
    pytest.param("keep_alive = \n", 1, "keep_alive", "Empty value", id="no value"),
    pytest.param('\n\nstate_dir = "x\n', 3, "state_dir", "Unbalanced quotes", id="open string"),
    pytest.param("keep_alive = 1\nkeep_alive = 2\n", 2, "keep_alive", "Duplicate", id="key twice"),
    pytest.param("[limits]\npeers = 20\n[limits]\n", 3, "limits", "twice", id="table twice"),
    pytest.param("keep_alive = 1\n[limits\n", 2, "", "Key group", id="open header"),
    pytest.param("keep_alive = 1\nx = {a = 1\n", 2, "x", "not valid TOML", id="open inline table"),
    pytest.param("[listen]\nport = 1\n[[listen]]\nport = 2\n", 3, "listen", "not valid TOML", id="table then array"),
    pytest.param("keep_alive = 2024-01-01\n", 1, "keep_alive", "a date", id="date"),
    pytest.param('state_dir = """\na\nb"""\nkeep_alive = 0\n', 4, "keep_alive", "from 0.1", id="after many lines"),
]


@pytest.mark.parametrize(("text", "line", "key", "reason"), FAULTS)
def test_one_line_for_each_fault(tmp_path: Path, text: str, line: int, key: str, reason: str) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_text(text)
    said = refused(path)
    hits = [found for found in map(LINE.fullmatch, said) if found and found["line"] == str(line)]
    assert len(hits) == len(said) or len(said) > 1, said
    assert any(hit["file"] == str(path) and key in hit["key"] and reason in hit["reason"] for hit in hits), said


def test_all_faults_at_once_in_order(tmp_path: Path) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_text('keep_alive = "x"\n[limits]\npeers = -1\npears = 1\n[log]\nlevel = "loud"\n')
    assert [line.split(": ")[:2] for line in refused(path)] == [
        [f"{path}:1", "keep_alive"],
        [f"{path}:3", "limits.peers"],
        [f"{path}:4", "limits.pears"],
        [f"{path}:6", "log.level"],
    ]


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.toml")[0]
    assert "Is a directory" in refused(tmp_path)[0]


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_bytes(b"keep_alive = 1\n\xff\xfe\n")
    assert refused(path) == [f"{path}:2: file: not UTF-8 text"]


def test_run_refuses_too(tmp_path: Path) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_text("[limits]\npears = 1\n")
    done = srpnode("run", "-c", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{path}:2: limits.pears: unknown key; the nearest known one is limits.peers\n"


def test_drop_ins_later_wins_and_errors_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_text(
        "keep_alive = 10\n[limits]\npeers = 100\nparked = 50\n[[listen]]\nport = 4000\n[[listen]]\nport = 4001\n"
    )
    directory = tmp_path / "srpnode.toml.d"
    directory.mkdir()
    (directory / "20-more.toml").write_text("[limits]\npeers = 300\n")
    (directory / "10-first.toml").write_text("keep_alive = 20\n[limits]\npeers = 200\n[[listen]]\nport = 5000\n")
    (directory / "README").write_text("not read")
    loaded = config.load(str(path))
    assert loaded.files == tuple(map(str, (path, directory / "10-first.toml", directory / "20-more.toml")))
    assert (loaded.config.keep_alive, loaded.config.limits.peers, loaded.config.limits.parked) == (20, 300, 50)
    assert [(item.name, item.port, item.probe_port) for item in loaded.config.listen] == [("a", 5000, 5002)]
    (directory / "20-more.toml").write_text("\n[limits]\npeers = 1\n")
    assert refused(path)[0].startswith(f"{directory}/20-more.toml:3: limits.peers: ")


def test_usage_errors_exit_2() -> None:
    for arguments in ([], ["fly"], ["ping"], ["ping", "host"], ["ping", "host:0"], ["ping", "h:1", "-n", "0"]):
        assert srpnode(*arguments).returncode == 2, arguments


def test_check_without_a_file_uses_embedded_defaults(tmp_path: Path) -> None:
    if Path(schema.DEFAULT_FILE).exists():
        pytest.skip("this machine has a configuration of its own")
    done = srpnode("check", cwd=tmp_path)
    assert done.returncode == 0
    assert "embedded defaults" in done.stdout
    assert os.listdir(tmp_path) == []


def test_check_json(tmp_path: Path) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_text("")
    assert '"ok": true' in srpnode("check", "--json", "-c", str(path), check=True).stdout


def test_what_a_reload_can_take_over() -> None:
    old, new = schema.Config(listen=schema.default_listen()), schema.Config(listen=schema.default_listen())
    assert config.changed(old, new) == ([], [])
    new.limits.replicated_per_minute = 5
    new.limits.peers = 17
    new.log.level = "debug"
    new.listen[1].port = 4000
    new.listen[0].advertise = "192.0.2.7"
    now, restart = config.changed(old, new)
    assert (now, restart) == (
        ["limits.replicated_per_minute", "log.level", "listen.a.advertise"],
        ["limits.peers", "listen.b.port"],
    )


TOML_PIECES = st.sampled_from(
    [
        "[",
        "]",
        "[[listen]]",
        "[limits]",
        "\n",
        "=",
        "port",
        "peers",
        '"',
        "'",
        '"""',
        "\\",
        "#",
        "{",
        "}",
        ",",
        "1",
        " ",
        ".",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(TOML_PIECES, max_size=30))
def test_any_text_is_read_or_refused_by_lines(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("".join(pieces))
    try:
        config.load(str(path))
        return
    except config.ConfigError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert re.match(rf"{re.escape(str(path))}:\d+: [^\n]+: [^\n]+$", problem), problem
