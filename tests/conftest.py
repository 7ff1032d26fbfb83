"""What all tests share: the control experiment of the interoperation tests, see tests/interop/sut.py."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "reference_fails(reason): the reference peer itself fails this scenario")


def pytest_report_header() -> list[str]:
    return [f"system under test: {os.environ.get('SRPNODE_SUT', 'srpnode')}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With SRPNODE_SUT=reference the reference runs in srpnode's place: its known faults are no news then."""
    if os.environ.get("SRPNODE_SUT") != "reference":
        return
    for item in items:
        mark = item.get_closest_marker("reference_fails")
        if mark is not None:
            item.add_marker(pytest.mark.xfail(reason=mark.args[0], strict=False))
