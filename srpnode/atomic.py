"""Files that are written whole or not at all, whatever happens to the machine in between."""

import contextlib
import os


def write_new(path: str, data: bytes) -> None:
    """Writes a file that must not exist yet, whole or not at all (temporary file, fsync, link). Mode 0600; the owner is
    that of the directory, so that root may make it for the user that runs the node. Raises OSError."""
    temporary = _temporary(path, data)
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
    _sync_directory(path)


def write_over(path: str, data: bytes) -> None:
    """Writes a file, replacing an old one whole or not at all. Mode 0600. Raises OSError."""
    temporary = _temporary(path, data)
    try:
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    _sync_directory(path)


def sweep(directory: str) -> None:
    """Removes what processes that were killed while they wrote have left there."""
    for name in os.listdir(directory):
        stem, _, process = name.removesuffix(".new").rpartition(".")
        if stem and name.endswith(".new") and process.isdigit() and not _runs(int(process)):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _temporary(path: str, data: bytes) -> str:
    temporary = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            owner = os.stat(os.path.dirname(path) or ".")
            if os.geteuid() == 0 and owner.st_uid != 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except OSError:
        os.unlink(temporary)
        raise
    return temporary


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
