"""C helpers of these tests, built once a session."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.c_files import ROOT, compile_with

HERE = Path(__file__).parent
CEXT = ROOT / "cext"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """compile_c(name, sources, *flags): a program, or with -shared a library."""
    folder = tmp_path_factory.mktemp("c")

    def compile_(name: str, sources: list[Path], *flags: str) -> Path:
        result = folder / name
        compile_with(["-O1", "-g", *map(str, sources), *flags], result)
        return result

    return compile_


@pytest.fixture(scope="session")
def library(compile_c: Compile) -> ctypes.CDLL:
    """cext/udp.c with tests/net/harness.c and inject.c."""
    sources = [CEXT / "udp.c", HERE / "harness.c", HERE / "inject.c"]
    lib = ctypes.CDLL(str(compile_c("harness.so", sources, "-shared", "-fPIC")))
    lib.harness_new.restype = ctypes.c_void_p
    lib.harness_count.restype = ctypes.c_uint64
    lib.srp_udp_count_name.restype = ctypes.c_char_p
    lib.srp_udp_drops.restype = ctypes.c_uint32
    lib.srp_udp_look.restype = lib.srp_udp_filtered.restype = ctypes.c_bool
    return lib


@pytest.fixture
def inject(library: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    """The library, with all injected faults ended before and after."""
    library.inject_reset()
    yield library
    library.inject_reset()
