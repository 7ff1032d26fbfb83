"""The programs of the bench, built once."""

from pathlib import Path

import pytest

from bench import programs


@pytest.fixture(scope="session")
def built() -> dict[str, Path]:
    return programs.build()
