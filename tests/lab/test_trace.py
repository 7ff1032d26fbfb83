"""The decoder, the pairing of sent with received datagrams, and the figures, on data with known answers."""

import struct

import pytest

from .capture import Datagram, parse
from .figures import interval, spread
from .matrix import all_pairs, starts
from .pairing import OFFSETS_S, Mode
from .trace import decode, lines

UNSET = b"\x00"
MESSAGE = b'{"requesterPeerId":"' + b"ab" * 32 + b'","natType":31}'
A, B, SERVER = ("192.168.1.2", 5000), ("198.51.100.20", 6000), ("198.51.100.10", 3511)


def packet(kind: int, message: bytes, hops: int = 0) -> bytes:
    """A packet as the wire has it, all other fields unset."""
    fields = [UNSET] * 9 + [message, UNSET]
    head = b"\x03\x05\x0b\x11" + struct.pack("!BHIIiI", kind, 6, 7, hops, -1, 21_600_000)
    return head + b"".join(struct.pack("!H", len(field)) + field for field in fields)


def test_decode_reads_every_field() -> None:
    found = decode(packet(4, MESSAGE, hops=3))
    assert found is not None
    assert (found.kind, found.clock, found.hops) == ("join", 7, 3)
    assert found.message == {"requesterPeerId": "ab" * 32, "natType": 31}
    assert found.fields["clusterId"] == UNSET


@pytest.mark.parametrize("data", [b"", b"\x01", packet(1, MESSAGE)[:40], b"\x00" * 200])
def test_decode_refuses_what_is_no_packet(data: bytes) -> None:
    assert decode(data) is None


def test_decode_survives_a_message_that_is_no_object() -> None:
    for message in (b"{", b"[1]", UNSET):
        found = decode(packet(1, message))
        assert found is not None
        assert found.message == {}


def test_a_sent_datagram_and_its_arrival_are_one_line() -> None:
    data = packet(1, MESSAGE)
    seen = [
        Datagram(1, "a", True, A, SERVER, data),
        Datagram(2, "i", False, B, SERVER, data),
        Datagram(3, "a", True, A, ("198.51.100.21", 7000), b"\x01"),
        Datagram(4, "a", True, A, ("198.51.100.21", 7001), b"\x01"),
    ]
    (one, told), (two, lost) = lines(seen, {"ab" * 32: "a"})
    assert (one, two) == (1, 3)
    assert told.startswith("a > i  192.168.1.2:5000 > 198.51.100.10:3511 as 198.51.100.20:6000 > 198.51.100.10:3511")
    assert "ping requester=a natType=31" in told
    assert lost == "a > ?  192.168.1.2:5000 > 198.51.100.21:7000  1 bytes 0x01  and 1 more like it"


def test_equal_bytes_to_two_targets_are_told_apart() -> None:
    data, other = packet(1, MESSAGE), ("198.51.100.11", 3512)
    seen = [
        Datagram(1, "a", True, A, SERVER, data),
        Datagram(2, "a", True, A, other, data),
        Datagram(3, "i", False, B, other, data),
    ]
    (_, first), (_, second) = lines(seen, {})
    assert first.startswith("a > ?")
    assert second.startswith("a > i")


def test_frames_that_hold_no_udp_are_ignored() -> None:
    ethernet = bytes(12)
    ip = bytes([0x45]) + bytes(8) + bytes([17]) + bytes(2) + bytes([192, 168, 1, 2, 198, 51, 100, 10])
    udp = struct.pack("!HHHH", 5000, 3511, 9, 0) + b"x"
    assert parse(ethernet + b"\x08\x00" + ip + udp) == (A, SERVER, b"x")
    assert parse(ethernet + b"\x08\x00" + ip.replace(bytes([17]), bytes([6]), 1) + udp) is None
    assert parse(ethernet + b"\x08\x06" + ip + udp) is None
    assert parse(b"short") is None


def test_spread_and_interval_against_known_values() -> None:
    found = spread([float(value) for value in range(1, 101)])
    assert found is not None
    assert (found.median, found.p10, found.p90, found.least, found.most) == (50.5, 10, 90, 1, 100)
    assert spread([]) is None
    for successes, known in ((0, (0.0, 0.2775)), (5, (0.2366, 0.7634)), (10, (0.7225, 1.0))):
        assert interval(successes, 10) == pytest.approx(known, abs=5e-5)
    assert interval(0, 0) == (0.0, 1.0)


def test_starts_cover_every_mode_with_either_side_first_and_replay_from_the_seed() -> None:
    plan = starts(1, "x", 12)
    assert plan == starts(1, "x", 12)
    assert plan != starts(2, "x", 12)
    assert {(start.first, start.mode) for start in plan[:6]} == {(first, mode) for first in (0, 1) for mode in Mode}
    for start in plan:
        low, high = OFFSETS_S[start.mode]
        assert low <= start.offset_s <= high
    assert len(all_pairs()) == 21
