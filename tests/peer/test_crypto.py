"""Keys, seals and split messages against vectors that the reference peer made."""

from __future__ import annotations

import os

import pytest

from srpnode import Encryption
from srpnode.compose import Composer
from srpnode.core import codec
from srpnode.crypto import SEALED_EXTRA_BYTES, Sealer, SealError, sign, verify
from tests.wire.vectors import load


@pytest.mark.parametrize("vector", load("keys"), ids=lambda v: v["text"][:12])
def test_keys(vector: dict[str, str]) -> None:
    text = vector["text"]
    assert Encryption.create_id(text) == vector["id"]
    assert Encryption.create_cluster_id(text).hex() == vector["cluster_id"]
    shared_key = Encryption.create_shared_key(text)
    assert shared_key.hex() == vector["shared_key"]
    for seed in (shared_key, text):
        pair = Encryption.create_key_pair(seed)
        assert pair.public_key.hex() == vector["public_key"]
        assert pair.private_key.hex() == vector["private_key"]


def test_random_keys_differ() -> None:
    for make in (
        Encryption.create_id,
        Encryption.create_cluster_id,
        Encryption.create_shared_key,
        Encryption.create_key_pair,
    ):
        assert make() != make()


@pytest.mark.parametrize("number", range(len(load("sealed"))))
def test_sealed(number: int) -> None:
    vector = {name: bytes.fromhex(value) for name, value in load("sealed")[number].items()}
    sealer = Sealer(Encryption.create_key_pair(vector["shared_key"]))
    message = vector["message"]
    assert sealer.open(vector["sealed"]) == message
    assert len(vector["sealed"]) == len(message) + SEALED_EXTRA_BYTES
    assert verify(message, vector["sig"], vector["user_public_key"])
    again = sealer.seal(message)
    assert again != vector["sealed"]
    assert sealer.open(again) == message
    for at in (0, 31, 32, 47, 48, len(again) // 2, len(again) - 1):
        changed = bytearray(again)
        changed[at] ^= 1
        with pytest.raises(SealError):
            sealer.open(bytes(changed))
    for cut in (0, 1, 63, 64, len(again) - 1):
        with pytest.raises(SealError):
            sealer.open(again[:cut])
    with pytest.raises(SealError):
        Sealer(Encryption.create_key_pair()).open(again)


def test_signatures_cover_what_comes_after_byte_64() -> None:
    keys = Encryption.create_key_pair()
    message = os.urandom(200)
    signature = sign(message, keys.private_key)
    assert verify(message, signature, keys.public_key)
    assert verify(bytes(64) + message[64:], signature, keys.public_key)  # as it is with the reference
    assert not verify(message[:-1] + b"?", signature, keys.public_key)
    assert not verify(message, signature, Encryption.create_key_pair().public_key)
    assert not verify(message, signature[:-1], keys.public_key)
    assert not verify(message, signature, keys.public_key[:-1])


def frames(message: bytes) -> list[codec.Frame]:
    parts = codec.split(message, f'{{"id":"{os.urandom(4).hex()}"}}', ts=1)
    return [codec.decode(codec.encode(codec.PUBLISH, **part)) for part in parts]


@pytest.mark.parametrize("vector", load("splits"), ids=lambda v: str(v["size"]))
def test_composes_what_the_reference_splits(vector: dict[str, object]) -> None:
    packets = vector["packets"]
    assert isinstance(packets, list)
    message = bytes.fromhex(str(vector["message"]))
    for order in (packets, packets[::-1]):
        composer = Composer()
        whole = [composer.add(codec.decode(bytes.fromhex(packet["hex"])), 0.0) for packet in order]
        assert whole[:-1] == [None] * (len(packets) - 1)
        assert whole[-1] == message


class TestMissing:
    def test_named_by_what_is_there_and_less_and_less_often(self) -> None:
        packets = frames(os.urandom(8000))
        composer = Composer()
        for i in (0, 1, 3, 5, 6):
            assert composer.add(packets[i], 0.0) is None
        wanted = [packets[i]["packet_id"] for i in (2, 4, 7)]
        assert composer.missing(0.9, 1.0) == []
        asked_at = [tenth / 10 for tenth in range(10, 400) if composer.missing(tenth / 10, 1.0) == wanted]
        assert asked_at[0] == 1.0
        assert len(asked_at) == 5  # 1, 3, 7, 15, 31
        assert composer.after(packets[2]) == []
        assert composer.after(packets[6]) == [packets[7]["packet_id"]]

    def test_the_head(self) -> None:
        packets = frames(os.urandom(3000))
        composer = Composer()
        assert composer.add(packets[2], 0.0) is None
        assert composer.missing(1.0, 1.0)[0] == packets[0]["packet_id"]

    def test_bounds(self) -> None:
        composer = Composer(max_messages=10, max_bytes=10_000, lifetime_s=100.0)
        for number in range(50):
            composer.add(frames(os.urandom(3000))[1], float(number))
        assert composer.given_up == 41
        assert len(composer.missing(1000.0, 1.0, most=5)) == 5
        composer.add(frames(os.urandom(3000))[1], 2000.0)
        assert composer.given_up == 50

    def test_heads_without_sense(self) -> None:
        for text in (b"no JSON", b"{}", b'{"indexes": 0}', b'{"indexes": "3"}', b'{"indexes": 99999999}', b"[1]"):
            composer = Composer()
            head = codec.decode(codec.encode(codec.PUBLISH, index=0, message=text, packet_id=codec.sha256(text)))
            assert composer.add(head, 0.0) is None
            assert composer.missing(10.0, 1.0) == [head["packet_id"]]

    def test_packets_that_do_not_belong_are_replaced_by_those_that_do(self) -> None:
        message = os.urandom(3000)
        packets = frames(message)
        forged: list[codec.Frame] = [
            {**packets[1], "index": 77, "packet_id": bytes(32)},
            {**packets[1], "index": -7, "packet_id": bytes(32)},
            {**packets[2], "message": os.urandom(1024)},
            {**packets[0], "message": b'{"indexes": 2}'},
            {**packets[0], "message": b"nonsense"},
        ]
        composer = Composer()
        for packet in [*forged, packets[0], packets[1]]:
            assert composer.add(packet, 0.0) is None
        assert composer.add(packets[3], 0.0) is None  # as many as there should be, but one is forged
        assert composer.missing(1.0, 1.0) == [packets[2]["packet_id"]]
        assert composer.add(packets[2], 1.0) == message
        assert composer.given_up == 0

    def test_a_head_that_lies_about_the_end_is_asked_for_again(self) -> None:
        message = os.urandom(3000)
        packets = frames(message)
        composer = Composer()
        lie: codec.Frame = {**packets[0], "message": b'{"indexes": 1}'}
        for packet in [lie, *packets[1:]]:
            assert composer.add(packet, 0.0) is None
        assert composer.missing(1.0, 1.0) == [packets[0]["packet_id"]]
        assert composer.add(packets[0], 1.0) == message

    def test_a_head_whose_text_was_changed_on_the_way_does(self) -> None:
        """The reference adds to a head's meta after it made the packet's id."""
        message = os.urandom(3000)
        packets = frames(message)
        changed: codec.Frame = {**packets[0], "message": b'{"meta":{"ts":1},"ts":1,"size":3000,"indexes":3}'}
        composer = Composer()
        assert [composer.add(packet, 0.0) for packet in [changed, *packets[1:]]][-1] == message
