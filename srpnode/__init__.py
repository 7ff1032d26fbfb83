"""srpnode: infrastructure node of the Stream Relay Protocol, and a peer for Python programs.

from srpnode import network, Encryption
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srpnode.crypto import Encryption
    from srpnode.peer import network

__version__ = "0.1.0"
__all__ = ["Encryption", "__version__", "network"]


def __getattr__(name: str) -> Any:
    """The peer's parts are loaded when first used: the node itself has no need of them."""
    if name == "Encryption":
        from srpnode.crypto import Encryption

        return Encryption
    if name == "network":
        from srpnode.peer import network

        return network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
