"""Keys, ids and sealing as applications of the Stream Relay Protocol use them, over PyNaCl.

Facts: reference latica/encryption.js. A message is sealed twice to the subcluster's public key with a signature of its
private key in between, so whoever holds the shared key can read and write, and nobody on the way can do either.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from nacl import bindings
from nacl.exceptions import CryptoError

SIGNATURE_BYTES = 64
SEALED_EXTRA_BYTES = 2 * bindings.crypto_box_SEALBYTES + SIGNATURE_BYTES  # what sealing adds to a message


class KeyLengthError(ValueError):
    """A key or id is not 32 bytes (64 for a private key)."""


class SealError(ValueError):
    """A message that these keys do not open, or that was changed on its way."""


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair: public_key 32 bytes, private_key 64 bytes (seed and public key, as libsodium keeps it)."""

    public_key: bytes
    private_key: bytes


def wanted(value: bytes, size: int, name: str) -> bytes:
    """The value as bytes; raises KeyLengthError when it has another size."""
    if not isinstance(value, bytes | bytearray) or len(value) != size:
        raise KeyLengthError(f"{name}: {size} bytes wanted; make one with srpnode.Encryption")
    return bytes(value)


class Encryption:
    """Makes ids and keys. With a text or bytes the result is always the same, without it is random."""

    @staticmethod
    def create_id(seed: str | bytes | None = None) -> str:
        """A peerId: 64 hex digits, SHA-256 of the seed."""
        return hashlib.sha256(_bytes(seed)).hexdigest()

    @staticmethod
    def create_cluster_id(seed: str | bytes | None = None) -> bytes:
        """A clusterId: 32 bytes, SHA-256 of the seed."""
        return hashlib.sha256(_bytes(seed)).digest()

    @staticmethod
    def create_shared_key(seed: str | bytes | None = None) -> bytes:
        """A subcluster's shared key: 32 bytes, BLAKE2b of the seed. Whoever has it can read and write there."""
        if seed is None:
            return os.urandom(32)
        return hashlib.blake2b(_bytes(seed), digest_size=32).digest()

    @staticmethod
    def create_key_pair(seed: str | bytes | None = None) -> KeyPair:
        """An Ed25519 key pair from 32 bytes; a text is hashed with BLAKE2b first. Raises KeyLengthError."""
        if seed is None:
            seed = os.urandom(32)
        elif isinstance(seed, str):
            seed = hashlib.blake2b(seed.encode(), digest_size=32).digest()
        public_key, private_key = bindings.crypto_sign_seed_keypair(wanted(seed, 32, "seed"))
        return KeyPair(public_key, private_key)


def _bytes(seed: str | bytes | None) -> bytes:
    if seed is None:
        return os.urandom(32)
    return seed.encode() if isinstance(seed, str) else bytes(seed)


def sign(message: bytes, private_key: bytes) -> bytes:
    """The event's signature. It covers the message from byte 64 on only (so the reference: encryption.js, sign)."""
    return bytes(bindings.crypto_sign(message[SIGNATURE_BYTES:], private_key)[:SIGNATURE_BYTES])


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether sign() made this signature."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != 32:
        return False
    try:
        bindings.crypto_sign_open(signature + message[SIGNATURE_BYTES:], public_key)
    except (CryptoError, ValueError):
        return False
    return True


class Sealer:
    """Seals and opens messages of one subcluster."""

    def __init__(self, keys: KeyPair) -> None:
        self.keys = keys
        self._public = bindings.crypto_sign_ed25519_pk_to_curve25519(keys.public_key)
        self._secret = bindings.crypto_sign_ed25519_sk_to_curve25519(keys.private_key)

    def seal(self, message: bytes) -> bytes:
        """The message for the wire, SEALED_EXTRA_BYTES longer."""
        inner = bindings.crypto_box_seal(message, self._public)
        signature = bindings.crypto_sign(inner, self.keys.private_key)[:SIGNATURE_BYTES]
        return bytes(bindings.crypto_box_seal(signature + inner, self._public))

    def open(self, sealed: bytes) -> bytes:
        """The reverse; raises SealError."""
        try:
            outer = bindings.crypto_box_seal_open(sealed, self._public, self._secret)
            inner = bindings.crypto_sign_open(outer, self.keys.public_key)
            return bytes(bindings.crypto_box_seal_open(inner, self._public, self._secret))
        except (CryptoError, ValueError, TypeError) as error:
            raise SealError("not sealed with this subcluster's key, or changed on its way") from error
