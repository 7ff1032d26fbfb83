"""Skips the laboratory's tests loudly where it cannot run."""

import pytest

from .requirements import missing, missing_reference


def _need(reason: str | None) -> None:
    if reason is not None:
        pytest.skip(f"NO NAT LABORATORY HERE: {reason}")


@pytest.fixture(scope="session")
def laboratory() -> None:
    """The machine can build worlds."""
    _need(missing())


@pytest.fixture(scope="session")
def reference_peers(laboratory: None) -> None:
    """The machine can also run reference peers in them."""
    _need(missing_reference())
