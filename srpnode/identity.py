"""Identity keys: state_dir/NAME.key, made at the first start and never written again.

The file is text: a version line, the Ed25519 seed and the peerId (the public key) that follows from it, so that damage
shows. A file that cannot be used stops the start and is left as it is.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nacl.bindings import crypto_sign_seed_keypair

from srpnode import atomic

VERSION_LINE = "srpnode identity 1"
SEED_BYTES = 32
FILE_MAX = 4_096  # bytes; a key file has about 160


class StateError(Exception):
    """Something in the state directory stops the start; the text names the path and a remedy."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One key pair. `seed` and `peer_id` are 32 bytes each; the seed is secret and stays out of repr()."""

    name: str
    seed: bytes
    peer_id: bytes

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, {self.peer_id.hex()})"


def prepare(state_dir: str) -> None:
    """Makes the state directory (0700) when it is missing. Raises StateError when it cannot be used."""
    path = Path(state_dir)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    except (FileExistsError, NotADirectoryError):
        raise StateError(f"{state_dir}: not a directory; remove it or set another state_dir") from None
    except OSError as error:
        raise StateError(
            f"{state_dir}: cannot be made ({error.strerror}); make it by hand or set another state_dir"
        ) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(f"{state_dir}: others can write to it; chmod 700 {state_dir}")


@contextlib.contextmanager
def lock(state_dir: str, control_socket: str) -> Iterator[None]:
    """Keeps a second node away from the same state directory while the context lasts, and says in it where this one
    can be asked. Raises StateError."""
    path = os.path.join(state_dir, "lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(f"{path}: cannot be opened ({error.strerror}); check the owner of {state_dir}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _lock_lines(descriptor)[0]
            raise StateError(
                f"{state_dir}: used by another srpnode (process {holder or 'unknown'}); "
                "stop it or set another state_dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n{control_socket}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def running_control_socket(state_dir: str) -> str:
    """The control socket of the node that works in that directory, which started with it: its file may name another by
    now. "" when none is known."""
    try:
        descriptor = os.open(os.path.join(state_dir, "lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return _lock_lines(descriptor)[1]
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _lock_lines(descriptor: int) -> tuple[str, str]:
    """(process, control socket) of the holder, "" where it is not known."""
    process, _, rest = os.pread(descriptor, 256, 0).decode("utf-8", "replace").partition("\n")
    return process, rest.partition("\n")[0]


def load_or_make(state_dir: str, name: str) -> Identity:
    """The identity of that name; made and stored when there is none. Raises StateError."""
    path = os.path.join(state_dir, name + ".key")
    try:
        return load(path, name)
    except FileNotFoundError:
        pass
    seed = os.urandom(SEED_BYTES)
    made = _from_seed(name, seed)
    text = f"{VERSION_LINE}\nseed {seed.hex()}\npeer_id {made.peer_id.hex()}\n"
    try:
        atomic.write_new(path, text.encode())
    except FileExistsError:  # another process was faster
        return load(path, name)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be written ({error.strerror}); {_room(error)} of {state_dir}, nothing was changed"
        ) from None
    return made


def load(path: str, name: str) -> Identity:
    """Reads one key file. Raises FileNotFoundError when there is none, StateError when it is not usable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateError(
            f"{path}: identity cannot be read ({error.strerror}); let the user that runs srpnode own it (chown), "
            "or move it away to start with a new identity"
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StateError(f"{path}: not a regular file; move it away")
        if status.st_mode & 0o077:
            raise StateError(f"{path}: identity is open to other users; chmod 600 {path}")
        data = os.read(descriptor, FILE_MAX)
    except OSError as error:
        raise StateError(f"{path}: identity cannot be read ({error.strerror}); check the disk") from None
    finally:
        os.close(descriptor)
    return _parse(path, name, data)


def _parse(path: str, name: str, data: bytes) -> Identity:
    """Checks every byte: a damaged seed would silently be another peer."""
    remedy = "restore it from a backup, or move it away to start with a new identity (a new peerId)"
    lines = data.decode("ascii", "replace").splitlines()
    if lines and lines[0].startswith("srpnode identity ") and lines[0] != VERSION_LINE:
        raise StateError(f"{path}: identity of another version ({lines[0]!r}); it was made by a newer srpnode, upgrade")
    try:
        head, seed_line, peer_line = lines
        (seed_word, seed_hex), (peer_word, peer_hex) = seed_line.split(" "), peer_line.split(" ")
        seed, peer_id = bytes.fromhex(seed_hex), bytes.fromhex(peer_hex)
    except ValueError:
        raise StateError(f"{path}: identity is corrupt; {remedy}") from None
    if (head, seed_word, peer_word, len(seed)) != (VERSION_LINE, "seed", "peer_id", SEED_BYTES):
        raise StateError(f"{path}: identity is corrupt; {remedy}")
    identity = _from_seed(name, seed)
    if identity.peer_id != peer_id:
        raise StateError(f"{path}: identity is corrupt (seed and peer_id do not belong together); {remedy}")
    return identity


def _from_seed(name: str, seed: bytes) -> Identity:
    public, _ = crypto_sign_seed_keypair(seed)
    return Identity(name, seed, public)


def _room(error: OSError) -> str:
    return "make room on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check owner and mode"
