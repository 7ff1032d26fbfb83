"""srpnode: infrastructure node of the Stream Relay Protocol."""

__version__ = "0.1.0"
