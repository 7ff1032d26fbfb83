"""The core asks the operating system for nothing: no clock, no socket, no random, no file, no thread, no allocation of its own.

What a module imports is written in its dynamic symbol table; how it was made is in the C that Cython wrote. Both are read here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "srpnode" / "core"
MODULES = sorted(path.stem for path in CORE.glob("*.pyx"))
SANITIZED = os.environ.get("SRPNODE_SANITIZE") == "1"

# Beside Python's own: memory moves, one number parser without allocation, SHA's low level, what the linker adds.
ALLOWED = re.compile(
    r"mem(cpy|move|set|cmp)|str(len|rchr)|strtod|SHA(1|256)_(Init|Update|Final)"
    r"|PyRun_StringFlags"  # Cython 0.29, for generator expressions
    r"|__stack_chk_fail|__cxa_finalize|__gmon_start__|_ITM_\w+TMCloneTable"
)
# Of Python only what makes and handles objects. Not: threads, the interpreter lock, time, files, running code, raw memory.
PYTHON = re.compile(r"_?Py[A-Z_]\w*")
NOT_PYTHON = re.compile(
    r"PyThread_\w+|PyGILState_\w+|PyEval_\w+Thread|_?PyTime\w*|PyFile_\w+|PyRun_\w+|PySys_\w+|PyOS_(?!snprintf)\w+"
    r"|PyMem_Raw\w+|_?Py_HashSecret|_PyOS_URandom\w*|PyEval_EvalCode"
)
SANITIZERS = re.compile(r"__(asan|ubsan|sanitizer)_\w+")


def library(module: str) -> Path:
    (found,) = CORE.glob(f"{module}.*.so")
    return found


@cache
def imports(module: str) -> list[str]:
    """The dynamic symbols that the module leaves to others, without versions."""
    table = subprocess.run(
        ["nm", "-D", "--undefined-only", library(module)], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return [line.split()[-1].split("@")[0] for line in table.splitlines()]


@pytest.mark.parametrize("module", MODULES)
def test_imports(module: str) -> None:
    memory = {"PyMem_RawCalloc", "PyMem_RawFree"} if module == "node" else set()
    refused = [
        symbol
        for symbol in imports(module)
        if symbol not in memory
        and not ALLOWED.fullmatch(symbol)
        and not (PYTHON.fullmatch(symbol) and not NOT_PYTHON.fullmatch(symbol))
        and not (SANITIZED and SANITIZERS.fullmatch(symbol))
    ]
    assert refused == []
    assert "SHA256_Init" in imports("node"), "nm reads nothing"


def test_memory_is_taken_in_one_place() -> None:
    """One calloc at construction, one free at the end."""
    source = (CORE / "node.pyx").read_text()
    assert len(re.findall(r"PyMem_RawCalloc\(1, total\)", source)) == 1
    assert len(re.findall(r"PyMem_RawFree\(self.state\)", source)) == 1
    assert len(re.findall(r"PyMem_\w+\((?!self.state|1, total|size_t|void)", source)) == 0
    for module in MODULES:
        if module != "node":
            assert "PyMem" not in (CORE / f"{module}.pyx").read_text(), module


def test_the_core_uses_only_itself() -> None:
    """No import but of the core, libc's types and memory moves, and Cython's view of Python."""
    pattern = re.compile(r"^\s*(?:from\s+(\S+)\s+c?import|c?import\s+(\S+))", re.MULTILINE)
    for path in [*CORE.glob("*.pyx"), *CORE.glob("*.pxd")]:
        for match in pattern.finditer(path.read_text()):
            name = match.group(1) or match.group(2)
            assert name.startswith(("srpnode.core", "cpython.")) or name in (
                "libc.stddef",
                "libc.stdint",
                "libc.string",
            ), f"{path.name}: {name}"


# --- lines that touch no Python object ------------------------------------------------------------------------------

ROOTS = ("receive_batch", "tick_at", "pressed_at", "due_us", "output", "output_done", "command", "wants_pool", "pool_opened", "app_waiting")
FUNCTION = re.compile(
    r"^(?:static |extern |CYTHON_INLINE |__PYX_EXTERN_C )[^;={}]*?\b(__pyx_f\w+)\([^;{}]*\) \{$", re.MULTILINE
)
# Whatever belongs to Python or to Cython's helpers for it, and its names and constants that are Python objects.
TOUCH = re.compile(r"\b(_?Py(?!_ssize_t\b)[A-Z_]\w*|__Pyx_\w+|__pyx_(?:n_s|n_u|kp|int|tuple|builtin|d|m|b|empty)_\w*)\b")


@cache
def generated() -> dict[str, str]:
    """The C of every module: what the build left, or written anew when that is missing or older than its source."""
    directory = ROOT / "build" / "cython" / "srpnode" / "core"
    paths = [directory / f"{module}.c" for module in MODULES]
    if not all(path.exists() and path.stat().st_mtime >= (CORE / f"{path.stem}.pyx").stat().st_mtime for path in paths):
        directory = ROOT / "build" / "tests" / "cython" / "srpnode" / "core"
        script = (
            "from Cython.Build import cythonize; import sys; cythonize(sys.argv[1:], "
            "build_dir='build/tests/cython', force=True, quiet=True, "
            "compiler_directives={'language_level': '3', 'boundscheck': False, 'wraparound': False, "
            "'cdivision': True, 'initializedcheck': False})"
        )
        sources = [f"srpnode/core/{module}.pyx" for module in MODULES]
        subprocess.run([sys.executable, "-c", script, *sources], cwd=ROOT, check=True, timeout=300)
    return {module: (directory / f"{module}.c").read_text() for module in MODULES}


@cache
def functions() -> dict[str, tuple[str, str]]:
    """Every C function that Cython made of a cdef function: its module and its body."""
    found: dict[str, tuple[str, str]] = {}
    for module, text in generated().items():
        for match in FUNCTION.finditer(text):
            body = text[match.end() : text.index("\n}\n", match.end())]
            found.setdefault(match.group(1), (module, body))
    return found


def code(body: str) -> str:
    """Without comments, in which Cython quotes the source."""
    return re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)


def hot() -> set[str]:
    """What is reached from the methods that a driver calls, through all modules."""
    known = functions()
    todo = [f"__pyx_f_7srpnode_4core_4node_4Node_{root}" for root in ROOTS]
    assert all(root in known for root in todo), [root for root in todo if root not in known]
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        todo += [other for other in re.findall(r"\b__pyx_f\w+", code(known[name][1])) if other in known]
    return reached


def test_hot_lines_touch_no_python() -> None:
    """All that happens to a datagram, a tick and a command, between the driver and the output queue."""
    touching = {name: TOUCH.findall(code(functions()[name][1])) for name in hot()}
    assert {name: found for name, found in touching.items() if found} == {}


def test_hot_functions_are_all_there() -> None:
    """The search above follows every call: what the sources declare as nogil is reached, but for a few that others use."""
    reached = {name.rsplit("_4core_", 1)[1].split("_", 1)[1].removeprefix("4Node_") for name in hot()}
    for name in ("receive_one", "on_ping", "on_pong", "on_join", "on_publish", "on_stream", "on_sync", "on_query", "out_push"):
        assert any(other.endswith(name) for other in reached), name
    declared = set()
    for module in MODULES:
        source = (CORE / f"{module}.pyx").read_text()
        declared |= set(re.findall(r"^\s*cdef [^=\n]*?(\w+)\((?:[^()]|\n)*\) noexcept nogil:", source, re.MULTILINE))
    missed = {name for name in declared if not any(other.endswith(name) for other in reached)}
    assert len(declared) > 100
    assert missed <= {"add_configured", "carve", "start_strangers"}, missed  # those of the constructor


def test_the_search_sees_python_where_it_is() -> None:
    """The same reading of a function of the Python face finds plenty."""
    text = generated()["node"]
    start = text.index("static", text.index("/* Python wrapper */"))
    assert len(TOUCH.findall(code(text[start : start + 20_000]))) > 50


def test_c_files_know_no_python() -> None:
    for path in (ROOT / "cext").glob("*.[ch]"):
        assert "Python.h" not in path.read_text(), path.name
