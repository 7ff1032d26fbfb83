"""Lines on a terminal: level, suppression, forms of addresses."""

import io
import time

import pytest

from srpnode import journal
from srpnode.journal import Addresses, Journal, Kind, Level


def test_levels() -> None:
    out = io.StringIO()
    tell = Journal("warning", stream=out)
    tell.tell(journal.IDENTITY, "hidden")
    tell.tell(journal.FAILED, "shown")
    tell.tell(journal.PEER, "raised", level=Level.WARNING)
    tell.level = journal.LEVELS["debug"]
    tell.tell(journal.PEER, "at last", source="x")
    assert [line.split(" ", 1)[1] for line in out.getvalue().splitlines()] == [
        "error failed: shown",
        "warning peer: raised",
        "debug peer: at last",
    ]


def test_one_line_for_a_source_and_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = io.StringIO()
    tell = Journal("debug", stream=out)
    for _ in range(5):
        tell.tell(journal.PEER, "one", source="1")
        tell.tell(journal.PEER, "two", source="2")
    now += journal.WINDOW_S + 1
    tell.tell(journal.PEER, "one", source="1")
    assert [line.partition("peer: ")[2] for line in out.getvalue().splitlines()] == [
        "one",
        "two",
        "one (suppressed 4)",
    ]


def test_a_flood_of_sources_is_bounded() -> None:
    out = io.StringIO()
    tell = Journal("debug", stream=out)
    for number in range(10 * journal.SOURCES_MAX):
        tell.tell(journal.PEER, "x", source=str(number))
    assert len(out.getvalue().splitlines()) <= journal.SOURCES_MAX + 1
    assert len(tell._windows) <= journal.SOURCES_MAX + 1


def test_forms_of_addresses() -> None:
    assert Addresses("full").show("198.51.100.7", 80) == "198.51.100.7:80"
    assert Addresses("prefix").show("198.51.100.7", 80) == "198.51.100.0/24"
    assert Addresses("none").show("198.51.100.7") == "-"
    one, other = Addresses("hash"), Addresses("hash")
    assert one.show("198.51.100.7", 1) == one.show("198.51.100.7", 2)
    assert one.show("198.51.100.7") != other.show("198.51.100.7")


def test_message_ids_are_unique() -> None:
    kinds = [value for value in vars(journal).values() if isinstance(value, Kind)]
    assert len(kinds) == len({kind.message_id for kind in kinds}) == len({kind.name for kind in kinds})
    assert all(len(bytes.fromhex(kind.message_id)) == 16 for kind in kinds)
