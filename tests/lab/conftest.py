"""Skips the laboratory's tests loudly where it cannot run; fails them there in continuous integration."""

import pytest

from .requirements import in_ci, missing, missing_reference


def _need(reason: str | None) -> None:
    if reason is None:
        return
    message = f"NO NAT LABORATORY HERE: {reason}"
    if in_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def laboratory() -> None:
    """The machine can build worlds."""
    _need(missing())


@pytest.fixture(scope="session")
def reference_peers(laboratory: None) -> None:
    """The machine can also run reference peers in them."""
    _need(missing_reference())
