"""What can go wrong for a program that uses the peer. Each text says what to do about it."""

from __future__ import annotations


class NetworkError(Exception):
    """Something that the network or the caller has to change; the text says what."""


class NoPeersError(NetworkError, ValueError):
    """There is nobody to start from, or what was given describes no peer."""


class NotReadyError(NetworkError, TimeoutError):
    """The peer did not become ready in time: fewer than two of its peers answered."""


class UnreachableError(NetworkError):
    """No way to this peer is known, or it does not answer."""


class TooLargeError(NetworkError, ValueError):
    """The message is larger than peers keep."""


class StalledError(NetworkError, TimeoutError):
    """What was emitted could not leave in time: the network is away, or slower than this program."""


class SilentError(NetworkError, TimeoutError):
    """Nothing of what was waited for came in time."""


class ClosedError(NetworkError):
    """The peer, or the subcluster, was left already."""
