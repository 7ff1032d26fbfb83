"""The committed configuration file and man page are what the schema says, and mean the defaults."""

import re
from pathlib import Path

from srpnode import __version__, config, schema

ROOT = Path(__file__).parents[2]


def test_committed_configuration_is_generated() -> None:
    assert (ROOT / "conf/srpnode.toml").read_text() == schema.configuration_text()


def test_committed_man_page_is_generated() -> None:
    assert (ROOT / "docs/man/srpnode.toml.5").read_text() == schema.man_page(__version__)


def test_the_file_as_installed_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_text(schema.configuration_text())
    assert config.load(str(path)).config == schema.Config(listen=schema.default_listen())


def test_every_key_without_its_comment_sign_means_the_same(tmp_path: Path) -> None:
    path = tmp_path / "srpnode.toml"
    path.write_text(re.sub(r"^#(?=[a-z\[])", "", schema.configuration_text(), flags=re.M))
    loaded = config.load(str(path)).config
    assert loaded == schema.Config(listen=schema.default_listen())
    everything = re.sub(r"^##?(?=[a-z\[])", "", schema.configuration_text(), flags=re.M)
    path.write_text(everything)
    assert [peer.address for peer in config.load(str(path)).config.peer] == ["203.0.113.9"]


def test_every_default_passes_its_own_check(tmp_path: Path) -> None:
    for table in (schema.Config, *schema.TABLES.values()):
        for entry in schema.entries(table):
            known = entry.known
            assert known.doc.endswith("."), entry.name
            if known.low is not None:
                assert known.high is not None
                assert known.low <= entry.default <= known.high, entry.name
            if known.choices:
                assert entry.default in known.choices
