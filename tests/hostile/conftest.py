"""Builds what the tests of the core need beside the package."""

from tests.core import build

build.ensure()
