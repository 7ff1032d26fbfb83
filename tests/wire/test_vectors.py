"""Replays the vectors that the reference peer's own code made (tests/vectors/make.mjs)."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nacl.bindings as sodium
import nacl.exceptions
import pytest

from srpnode.core import codec
from tests.node import node, reference_dir
from tests.wire.reference import Reference
from tests.wire.vectors import DIRECTORY, MAXIMA, datagram, frame, load

DIFFERENCES = Path(__file__).parents[2] / "docs" / "wire-differences.md"
FILES = ("packets", "splits", "summaries", "keys", "sealed", "strategies", "nat-types", "verdicts")
ANY_TYPE = range(256)
NUMBERS = ("type", "clock", "hops", "index", "ttl")


def each(name: str, types: range = ANY_TYPE) -> pytest.MarkDecorator:
    """Runs a test with each vector of a file as its fixture `vector`, or with those of some packet types."""
    vectors = [vector for vector in load(name) if types == ANY_TYPE or vector["type"] in types]
    return pytest.mark.parametrize("vector", vectors, ids=[v.get("name", str(i)) for i, v in enumerate(vectors)])


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    with Reference() as child:
        yield child


def test_vectors_are_what_the_reference_makes(tmp_path: Path) -> None:
    reference_dir()
    subprocess.run([node(), str(DIRECTORY / "make.mjs"), str(tmp_path)], check=True, timeout=120)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert sorted(made) == sorted(f"{name}.json" for name in FILES)
    for name, text in made.items():
        assert text == (DIRECTORY / name).read_text(encoding="utf-8"), name


@each("packets")
def test_decodes(vector: dict[str, Any]) -> None:
    data = datagram(vector)
    packet = codec.decode(data)
    assert codec.verdict(data) == "ok"
    assert packet["size"] == len(data)
    for name in NUMBERS:
        assert packet[name] == vector[name]  # type: ignore[literal-required]
    for name in MAXIMA:
        assert packet[name].hex() == vector[name], name  # type: ignore[literal-required]


@each("packets")
def test_encodes_the_same_bytes(vector: dict[str, Any]) -> None:
    fields: dict[str, Any] = {name: bytes.fromhex(vector[name]) for name in MAXIMA}
    numbers: dict[str, Any] = {name: vector[name] for name in ("clock", "hops", "index", "ttl")}
    if vector["computed_id"]:
        del fields["packet_id"]
    # An unset field may be given as such or left out.
    for given in (fields, {name: value for name, value in fields.items() if value != codec.UNSET}):
        assert codec.encode(vector["type"], **numbers, **given).hex() == vector["hex"]


@each("packets", range(codec.PING, codec.PUBLISH))
def test_reads_and_writes_json(vector: dict[str, Any]) -> None:
    read = codec.read_message(datagram(vector))
    expected = {
        key: value.lower() if key.endswith("PeerId") or key == "cacheSummaryHash" else value
        for key, value in vector["json"].items()
        if value is not None
    }
    assert read == expected
    # Back to text: the same object in the schema's order, and again the same when it is read.
    text = codec.write_message(vector["type"], read)
    assert json.loads(text) == read
    assert codec.read_message(frame(vector["type"], text)) == read
    assert text == json.dumps({key: json.loads(text)[key] for key in json.loads(text)}, separators=(",", ":")).encode()


def test_every_type_full_and_unset_is_there() -> None:
    names = [vector["name"] for vector in load("packets")]
    for kind in codec.TYPES[1:]:
        assert f"{kind}, ids unset" in names
        assert f"{kind}, every id set" in names


@each("splits")
def test_splits(vector: dict[str, Any]) -> None:
    message = bytes.fromhex(vector["message"])
    packets = codec.split(message, ts=vector["ts"])
    assert len(packets) == len(vector["packets"])
    for packet, expected in zip(packets, vector["packets"], strict=True):
        assert packet["index"] == expected["index"]
        for name in ("packet_id", "previous_id", "next_id"):
            assert packet[name].hex() == expected[name], name
        theirs = codec.decode(bytes.fromhex(expected["hex"]))
        assert theirs["message"] == packet["message"]
        same = {name: theirs[name] for name in MAXIMA if name not in packet}  # type: ignore[literal-required]
        assert codec.encode(codec.PUBLISH, clock=expected["clock"], **same, **packet).hex() == expected["hex"]
    if "composed_id" in vector:
        # Composed from the head, whose previousId is unset: one zero byte in front.
        assert codec.sha256(codec.UNSET, message).hex() == vector["composed_id"]
        assert b"".join(packet["message"] for packet in packets[1:]) == message


@each("summaries")
def test_summaries(vector: dict[str, Any]) -> None:
    ids = [bytes.fromhex(text) for text in vector["ids"]]
    for expected in vector["summaries"]:
        digest, buckets = codec.summarize(ids, expected["prefix"])
        assert digest.hex() == expected["hash"]
        assert [bucket and bucket.hex() for bucket in buckets] == expected["buckets"]
        data = codec.encode_summary(expected["prefix"], digest, buckets)
        assert data.hex() == expected["encoded"]
        assert codec.decode_summary(data) == (expected["prefix"], digest, buckets)
        if expected["prefix"]:  # the reference reads an empty prefix as slice(-0), the whole text: also empty
            assert expected["decoded"]["prefix"] == expected["prefix"]
        assert expected["decoded"]["buckets"] == expected["buckets"]


def test_bad_summaries() -> None:
    good = codec.encode_summary("abc", bytes(20), [bytes(20)] * 16)
    for at in range(len(good)):
        if at >= 23 and (at - 23) % 21 == 0:
            codec.decode_summary(good[:at])  # cut between buckets is a shorter summary
        else:
            with pytest.raises(ValueError, match="summary"):
                codec.decode_summary(good[:at])
    for bad in (b"\x41" + bytes(60), b"\x03\x1a\xbc" + bytes(20), good + good[-21:], bytes(21) + b"\x10" + bytes(20)):
        with pytest.raises(ValueError, match=r"summary|prefix|buckets"):
            codec.decode_summary(bad)


@each("keys")
def test_keys(vector: dict[str, Any]) -> None:
    text = vector["text"].encode()
    assert codec.sha256(text).hex() == vector["id"] == vector["cluster_id"]
    shared = sodium.crypto_generichash.generichash_blake2b_salt_personal(text, digest_size=32)
    assert shared.hex() == vector["shared_key"]
    public, private = sodium.crypto_sign_seed_keypair(shared)
    assert (public.hex(), private.hex()) == (vector["public_key"], vector["private_key"])
    assert vector["text_public_key"] == vector["public_key"]  # a text seed is hashed just as a shared key is made


def _pair(shared: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Ed25519 public and private, X25519 public and private key of a shared key."""
    public, private = sodium.crypto_sign_seed_keypair(shared)
    return (
        public,
        private,
        sodium.crypto_sign_ed25519_pk_to_curve25519(public),
        sodium.crypto_sign_ed25519_sk_to_curve25519(private),
    )


@each("sealed")
def test_sealed_by_the_reference(vector: dict[str, Any]) -> None:
    public, _, box_public, box_private = _pair(bytes.fromhex(vector["shared_key"]))
    opened = sodium.crypto_box_seal_open(bytes.fromhex(vector["sealed"]), box_public, box_private)
    inner = sodium.crypto_sign_open(opened, public)  # signature, then what it signs: libsodium's own layout
    message = bytes.fromhex(vector["message"])
    assert sodium.crypto_box_seal_open(inner, box_public, box_private) == message
    signed = bytes.fromhex(vector["sig"]) + message[64:]
    assert sodium.crypto_sign_open(signed, bytes.fromhex(vector["user_public_key"])) == message[64:]
    assert vector["event_id"] == codec.sha256(b"greeting").hex()


@each("sealed")
def test_sealed_by_us(vector: dict[str, Any], reference: Reference) -> None:
    shared, message = bytes.fromhex(vector["shared_key"]), bytes.fromhex(vector["message"])
    _, private, box_public, _ = _pair(shared)
    inner = sodium.crypto_box_seal(message, box_public)
    signature = sodium.crypto_sign(inner, private)[:64]
    sealed = sodium.crypto_box_seal(signature + inner, box_public)
    assert len(sealed) == len(message) + 160
    assert reference.open(sealed, shared) == message
    spoiled = sealed[:-1] + bytes([sealed[-1] ^ 1])
    assert reference.open(spoiled, shared) is None
    with pytest.raises(nacl.exceptions.CryptoError):
        sodium.crypto_box_seal_open(spoiled, box_public, _pair(shared)[3])
    other = sodium.crypto_box_seal(bytes(64) + inner, box_public)
    assert reference.open(other, shared) is None


@each("strategies")
def test_strategies(vector: dict[str, Any]) -> None:
    """The table of docs/protocol.md as a rule, for the core's own table to be held against the same vectors."""
    ours, theirs = vector["ours"], vector["theirs"]
    known = (31, 15, 7, 5)
    if theirs == 31:
        expected = "direct_connect"
    elif ours not in known or theirs not in known:
        expected = "proxy"
    elif ours == 31:
        expected = "defer"
    elif (ours, theirs) == (7, 5):
        expected = "traversal_open"
    elif (ours, theirs) == (5, 7):
        expected = "traversal_connect"
    elif (ours, theirs) == (5, 5):
        expected = "proxy"
    else:
        expected = "direct_connect"
    assert vector["strategy"] == expected


@each("nat-types")
def test_nat_types(vector: dict[str, Any]) -> None:
    text = json.dumps(
        {"requesterPeerId": "a" * 64, "responderPeerId": "b" * 64, "isRendezvous": True, "natType": vector["nat"]}
        | {"address": "127.0.0.1", "port": 9}
    ).encode()
    data = frame(codec.INTRO, text)
    assert (codec.verdict(data) == "ok") == vector["valid"]
    if vector["valid"]:
        assert codec.read_message(data)["natType"] == vector["nat"]


@each("verdicts")
def test_verdicts(vector: dict[str, Any]) -> None:
    data = datagram(vector)
    assert codec.verdict(data) == vector["verdict"]
    # No different where the buffer ends right behind, nor where more follows.
    if vector["verdict"] == "ok":
        codec.read_message(data)
    else:
        with pytest.raises(codec.Malformed) as caught:
            codec.read_message(data)
        assert caught.value.verdict == vector["verdict"]


def test_every_verdict_has_vectors() -> None:
    assert {vector["verdict"] for vector in load("verdicts")} == set(codec.VERDICTS)


def test_differences_are_documented() -> None:
    rows = DIFFERENCES.read_text(encoding="utf-8")
    for vector in load("verdicts"):
        if "difference" in vector:
            assert f"| {vector['difference']} |" in rows
