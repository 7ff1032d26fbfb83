"""srpnode: infrastructure node of the Stream Relay Protocol, and a peer for Python programs.

from srpnode import network, Encryption
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srpnode.crypto import Encryption as Encryption
    from srpnode.crypto import KeyLengthError as KeyLengthError
    from srpnode.crypto import KeyPair as KeyPair
    from srpnode.errors import ClosedError as ClosedError
    from srpnode.errors import NetworkError as NetworkError
    from srpnode.errors import NoPeersError as NoPeersError
    from srpnode.errors import NotReadyError as NotReadyError
    from srpnode.errors import SilentError as SilentError
    from srpnode.errors import StalledError as StalledError
    from srpnode.errors import TooLargeError as TooLargeError
    from srpnode.errors import UnreachableError as UnreachableError
    from srpnode.events import Message as Message
    from srpnode.find import find_peers as find_peers
    from srpnode.peer import Info as Info
    from srpnode.peer import Network as Network
    from srpnode.peer import network as network
    from srpnode.subcluster import Peer as Peer
    from srpnode.subcluster import Subcluster as Subcluster

__version__ = "0.1.0"

# The peer's parts are loaded when first used: the node itself has no need of them.
_HOME = {
    "Encryption": "crypto",
    "KeyLengthError": "crypto",
    "KeyPair": "crypto",
    "ClosedError": "errors",
    "NetworkError": "errors",
    "NoPeersError": "errors",
    "NotReadyError": "errors",
    "SilentError": "errors",
    "StalledError": "errors",
    "TooLargeError": "errors",
    "UnreachableError": "errors",
    "Message": "events",
    "find_peers": "find",
    "Info": "peer",
    "Network": "peer",
    "network": "peer",
    "Peer": "subcluster",
    "Subcluster": "subcluster",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
