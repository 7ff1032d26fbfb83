"""State files, blocks and volume: bounded, kept, and forgiving of damage."""

import io
import os
import shutil
from pathlib import Path

import pytest

from srpnode.blocks import BlockError, Blocks
from srpnode.journal import Journal
from srpnode.policy import EVERYBODY, Policy
from srpnode.schema import Access, Config, Limits, default_listen
from srpnode.state import StateFile
from srpnode.volume import THROTTLED_BYTES_PER_SECOND, Volume

JANUARY_S = 1_767_225_600.0  # 2026-01-01, UTC
MONTH_S = 31 * 86_400.0


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tell(said: io.StringIO) -> Journal:
    return Journal("debug", stream=said)


def test_written_whole_or_not_at_all(tmp_path: Path, tell: Journal, said: io.StringIO) -> None:
    state = tmp_path / "state"
    state.mkdir()
    file = StateFile(str(state / "x.json"), "x", tell)
    assert file.read() is None
    assert file.write({"a": 1})
    assert StateFile(str(state / "x.json"), "x", tell).read() == {"a": 1}
    assert os.listdir(state) == ["x.json"]
    assert (state / "x.json").stat().st_mode & 0o777 == 0o600
    shutil.rmtree(state)
    assert not file.write({"a": 2})
    assert not file.write({"a": 3})
    assert said.getvalue().count("cannot be written") == 1  # told once
    state.mkdir()
    assert file.write({"a": 4})
    assert StateFile(str(state / "x.json"), "x", tell).read() == {"a": 4}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b"null", b'{"version":1}', b'{"version":2,"kind":"x","data":1}', b"[" * 100_000],
    ids=["empty", "half", "no text", "a list", "null", "no data", "newer", "deep"],
)
def test_damage_is_put_aside(tmp_path: Path, tell: Journal, said: io.StringIO, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert StateFile(str(tmp_path / "x.json"), "x", tell).read() is None
    (aside,) = tmp_path.glob("x.json.corrupt-*")
    assert aside.read_bytes() == content
    assert "put aside" in said.getvalue()


def test_blocks_expire_and_survive(tmp_path: Path, tell: Journal) -> None:
    blocks = Blocks(str(tmp_path), tell)
    blocks.add("10.0.0.0/8", 100, JANUARY_S)
    blocks.add("ab" * 32, 50, JANUARY_S)
    assert blocks.add("10.0.0.0/8", 200, JANUARY_S).until_s == JANUARY_S + 200  # again: longer
    blocks = Blocks(str(tmp_path), tell)
    assert [(row["what"], row["seconds"]) for row in blocks.rows(JANUARY_S)] == [("ab" * 32, 50), ("10.0.0.0/8", 200)]
    assert blocks.expire(JANUARY_S + 60)
    assert not blocks.expire(JANUARY_S + 60)
    assert [row["what"] for row in blocks.rows(JANUARY_S)] == ["10.0.0.0/8"]
    for what in ("10.0.0.1/8", "::/0", "x", "", "ab"):
        with pytest.raises(BlockError):
            blocks.add(what, 1)
    for seconds in (0, -1, 1e12, float("nan")):
        with pytest.raises(BlockError):
            blocks.add("10.0.0.0/8", seconds)


def test_blocks_are_bounded(tmp_path: Path, tell: Journal) -> None:
    blocks = Blocks(str(tmp_path), tell)
    for number in range(256):
        blocks.add(f"10.0.{number}.0/24", 1000, JANUARY_S)
    with pytest.raises(BlockError, match="256 blocks already"):
        blocks.add("10.1.0.0/24", 1000, JANUARY_S)
    assert len(blocks.merged(Access()).deny_prefixes) == 256
    with pytest.raises(BlockError, match="more than 256"):
        blocks.merged(Access(deny_prefixes=["192.0.2.0/24"]))


def test_a_blocked_cluster_leaves_the_allow_list(tmp_path: Path, tell: Journal) -> None:
    blocks = Blocks(str(tmp_path), tell)
    blocks.add("aa" * 32, 1000)
    assert blocks.merged(Access(allow_clusters=["aa" * 32, "bb" * 32])).allow_clusters == ["bb" * 32]
    assert blocks.merged(Access(deny_clusters=["cc" * 32])).deny_clusters == ["aa" * 32, "cc" * 32]
    with pytest.raises(BlockError, match="every allowed cluster"):
        blocks.merged(Access(allow_clusters=["aa" * 32]))


def test_volume_counts_a_month_and_warns_once(tmp_path: Path, tell: Journal, said: io.StringIO) -> None:
    limits = Limits(volume_bytes_per_month=1000, volume_warn_percent=50)
    volume = Volume(str(tmp_path), tell, JANUARY_S)
    assert not volume.update(400, limits, JANUARY_S)
    assert said.getvalue() == ""
    assert not volume.update(600, limits, JANUARY_S)
    assert not volume.update(700, limits, JANUARY_S)
    assert said.getvalue().count("60 % of this month") == 1
    volume.save()
    volume = Volume(str(tmp_path), tell, JANUARY_S)  # a restart: the counters begin at 0 again
    assert volume.update(300, limits, JANUARY_S)
    assert volume.exceeded
    assert "used up" in said.getvalue()
    assert volume.update(300, limits, JANUARY_S + MONTH_S)  # a new month
    assert (volume.exceeded, volume.used, volume.month) == (False, 0, "2026-02")


def test_an_exceeded_volume_narrows_what_the_cores_allow(tmp_path: Path, tell: Journal) -> None:
    config = Config(listen=default_listen())
    config.limits.volume_bytes_per_month = 10
    policy = Policy(str(tmp_path), tell)
    assert policy.changed(config, 11)
    before = policy.effective(config)
    assert before == (config.limits, config.access)  # warn: nothing else
    config.limits.volume_action = "throttle"
    assert policy.effective(config)[0].bandwidth_out_bytes_per_second == THROTTLED_BYTES_PER_SECOND
    assert config.limits.bandwidth_out_bytes_per_second == 0
    config.limits.volume_action = "refuse"
    config.access.allow_prefixes = ["10.0.0.0/8"]
    access = policy.effective(config)[1]
    assert (access.deny_prefixes, access.allow_prefixes) == ([EVERYBODY], [])
    assert config.access.allow_prefixes == ["10.0.0.0/8"]
    config.limits.volume_bytes_per_month = 0
    assert policy.changed(config, 11)
    assert policy.effective(config)[1] == config.access
