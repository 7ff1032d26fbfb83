"""The Python face of the codec where the reference has no say: limits, errors, hashes."""

import hashlib
import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest

from srpnode.core import codec
from tests.wire.vectors import MAXIMA, frame

ID = "ab" * 32


@pytest.mark.parametrize("field", MAXIMA)
def test_encode_refuses_a_field_over_its_maximum(field: str) -> None:
    most = MAXIMA[field]
    assert len(codec.encode(codec.PUBLISH, **{field: bytes(most)})) > most  # type: ignore[arg-type]
    for length in (most + 1, 65536, 65536 + most):
        with pytest.raises(ValueError, match="maximum"):
            codec.encode(codec.PUBLISH, **{field: bytes(length)})  # type: ignore[arg-type]


def test_largest_datagram() -> None:
    fields = {name: bytes([7]) * most for name, most in MAXIMA.items()}
    data = codec.encode(codec.STREAM, **fields)  # type: ignore[arg-type]
    assert len(data) == 1421
    assert codec.decode(data)["sig"] == fields["sig"]


def test_encode_takes_only_known_types() -> None:
    for kind in (0, 9, -1, 256):
        with pytest.raises(ValueError, match="type"):
            codec.encode(kind)


def test_numbers_at_their_limits() -> None:
    data = codec.encode(codec.SYNC, clock=2**32 - 1, hops=2**32 - 1, index=-(2**31), ttl=0)
    packet = codec.decode(data)
    assert (packet["clock"], packet["hops"], packet["index"], packet["ttl"]) == (2**32 - 1, 2**32 - 1, -(2**31), 0)
    with pytest.raises(OverflowError):
        codec.encode(codec.SYNC, hops=2**32)


def test_clock_wraps() -> None:
    assert codec.decode(codec.encode(codec.SYNC, clock=2_000_000_000))["clock"] == 0
    assert codec.decode(codec.encode(codec.SYNC, clock=1_999_999_999))["clock"] == 1_999_999_999


def test_decode_says_why() -> None:
    with pytest.raises(codec.Malformed) as caught:
        codec.decode(b"\x01")
    assert caught.value.verdict == "short"
    with pytest.raises(codec.Malformed) as caught:
        codec.read_message(frame(codec.PING, b"{}"))
    assert caught.value.verdict == "missing"
    assert codec.decode(frame(codec.PING, b"{}"))["message"] == b"{}"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, b"0"),
        (-0.0, b"0"),
        (-1, b"-1"),
        (1.5, b"1.5"),
        (-2.25, b"-2.25"),
        (0.000001, b"0.000001"),
        (0.0000001, b"0"),
        (-0.0000001, b"0"),
        (0.9999999, b"1"),
        (1.02, b"1.02"),
        (123456.789, b"123456.789"),
        (2**53 - 1, b"9007199254740991"),
        (2**53, b"9007199254740991"),
        (-1e300, b"-9007199254740991"),
        (float("inf"), b"9007199254740991"),
        (float("nan"), b"0"),
    ],
)
def test_numbers_as_written(number: float, text: bytes) -> None:
    written = codec.write_message(codec.PING, {"requesterPeerId": ID, "uptime": number})
    assert written == b'{"requesterPeerId":"' + ID.encode() + b'","uptime":' + text + b"}"


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("0.0.0.0", True),
        ("255.255.255.255", True),
        ("1.20.30.4", True),
        ("256.0.0.1", False),
        ("1.2.3", False),
        ("1.2.3.", False),
        ("1.2.3.4.", False),
        ("1.2.3.4.5", False),
        (".1.2.3.4", False),
        ("1..2.3", False),
        ("01.2.3.4", False),
        ("1.2.3.00", False),
        ("1.2.3.1000", False),
        ("1.2.3.4 ", False),
        (" 1.2.3.4", False),
        ("1,2,3,4", False),
        ("-1.2.3.4", False),
        ("::1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_addresses(address: str, good: bool) -> None:
    text = f'{{"requesterPeerId":"{ID}","responderPeerId":"{ID}","address":"{address}"}}'
    read = codec.read_message(frame(codec.PONG, text.encode()))
    assert read.get("address") == (address if good else None)


def test_write_message_refuses() -> None:
    cases: list[tuple[int, dict[str, Any]]] = [
        (codec.PING, {"nonsense": 1}),
        (codec.PING, {"address": "127.0.0.1"}),
        (codec.PING, {"requesterPeerId": "ab"}),
        (codec.PING, {"natType": 4}),
        (codec.PING, {"probeExternalPort": 0}),
        (codec.PING, {"pingId": "12345678901"}),
        (codec.PING, {"reflectionId": "0123456789abc"}),
        (codec.PONG, {"address": "localhost"}),
        (codec.JOIN, {"key": 'a"b'}),
        (codec.JOIN, {"key": "x" * 129}),
        (codec.PUBLISH, {"requesterPeerId": ID}),
        (0, {}),
        (9, {}),
    ]
    for kind, message in cases:
        with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
            codec.write_message(kind, message)


def test_longest_messages_fit() -> None:
    for kind in (codec.PING, codec.PONG, codec.INTRO, codec.JOIN, codec.QUERY):
        message: dict[str, Any] = {}
        for key, (_, shape) in codec.KEYS.items():
            value = [ID, ID[:40], "0123456789ab", False, -(2.0**52) + 0.5, 65535, 31, "255.255.255.255", "k" * 128][
                shape
            ]
            try:
                codec.write_message(kind, message | {key: value})
            except ValueError:
                continue
            message[key] = value
        text = codec.write_message(kind, message)
        assert len(message) in (13, 15, 7, 12, 1)
        assert len(text) <= 1024
        assert codec.read_message(frame(kind, text)) == message


def test_siphash() -> None:
    # From the paper (Aumasson, Bernstein 2012, appendix A) and its reference program.
    key = bytes(range(16))
    assert codec.siphash(key, bytes(range(15))) == 0xA129CA6149BE45E5
    first = ["310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785", "b7877127e09427cf"]
    first += ["8da699cd64557618", "cee3fe586e46c9cb", "37d1018bf50002ab", "6224939a79f5f593", "b0e4a90bdf82009e"]
    for length, digest in enumerate(first):
        assert codec.siphash(key, bytes(range(length))) == int.from_bytes(bytes.fromhex(digest), "little")


def test_short_siphash() -> None:
    """SipHash-1-3, against the interpreter's own, whose key is all zeros when its seed is 0."""
    assert sys.hash_info.algorithm == "siphash13"
    data = [random.Random(length).randbytes(length) for length in range(1, 70)]
    script = f"print([hash(item) % 2**64 for item in {data!r}])"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, timeout=60)
    assert [codec.siphash(bytes(16), item, rounds=1) for item in data] == json.loads(done.stdout)


def test_hashes_agree_with_hashlib() -> None:
    source = random.Random(5)
    for length in (0, 1, 55, 56, 63, 64, 65, 1000):
        data = source.randbytes(length)
        cut = source.randrange(length + 1)
        assert codec.sha256(data) == codec.sha256(data[:cut], b"", data[cut:]) == hashlib.sha256(data).digest()
        assert codec.sha1(data) == codec.sha1(data[:cut], b"", data[cut:]) == hashlib.sha1(data).digest()
    with pytest.raises(ValueError, match="parts"):
        codec.sha256(*[b""] * 9)
