"""Builds the compiled parts: one extension per module below, each from its .pyx and the C files that it names.

SRPNODE_STRICT=1    warnings of Cython and of the C compiler are errors (what the tests build with)
SRPNODE_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
SRPNODE_ANNOTATE=1  Cython writes its annotated HTML beside the generated C
"""

import os
from pathlib import Path

import Cython
from Cython.Build import cythonize
from Cython.Compiler import Errors
from setuptools import Extension, setup

CODEC = ["wire", "json", "message", "digest"]

# module -> C files of cext/ that it links
MODULES: dict[str, list[str]] = {
    "srpnode.core.codec": CODEC,
    "srpnode.core.choose": ["peers", "digest"],
    "srpnode.core.strangers": [],
    "srpnode.core.reach": [*CODEC, "peers"],
    "srpnode.core.sync": [*CODEC, "peers", "store"],
    "srpnode.core.rounds": [],
    "srpnode.core.meet": [*CODEC, "peers"],
    "srpnode.core.gossip": [*CODEC, "peers", "store"],
    "srpnode.core.nat": [*CODEC, "peers"],
    "srpnode.core.punch": [*CODEC, "peers"],
    "srpnode.core.app": [*CODEC, "peers", "store"],
    "srpnode.core.node": [*CODEC, "peers", "store"],
    "srpnode.sim.queue": [],
    "srpnode.sim.nat": [],
    "srpnode.sim.world": [],
    "srpnode.net.filter": [],
    "srpnode.net.loop": ["udp"],
}

STRICT = os.environ.get("SRPNODE_STRICT") == "1"
SANITIZE = os.environ.get("SRPNODE_SANITIZE") == "1"
ANNOTATE = os.environ.get("SRPNODE_ANNOTATE") == "1"

cflags = ["-std=gnu11", "-O2", "-g", "-fno-strict-aliasing", "-fvisibility=hidden", "-Wall", "-Wextra"]
# What Cython's own boilerplate cannot avoid, in one version or the other.
cflags += ["-Wno-unused-function", "-Wno-unused-parameter", "-Wno-cast-function-type", "-Wno-missing-field-initializers"]
cflags += ["-Wno-sign-compare"]  # loops over ranges; `make lint` checks the C files without this
if Cython.__version__.startswith("0."):
    cflags += ["-Wno-deprecated-declarations"]  # leftovers of Cython 0.29 under Python 3.11
ldflags: list[str] = []
if STRICT:
    cflags.append("-Werror")
    Errors.warning_errors = True
if SANITIZE:
    cflags += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
    ldflags += ["-fsanitize=address,undefined"]


def extension(module: str, c_files: list[str]) -> Extension:
    pyx = module.replace(".", "/") + ".pyx"
    return Extension(
        module,
        [pyx, *(f"cext/{name}.c" for name in c_files)],
        include_dirs=["cext"],
        depends=[str(path) for path in sorted(Path("cext").glob("*.h"))],
        libraries=["crypto"] if "digest" in c_files else [],
        extra_compile_args=cflags,
        extra_link_args=ldflags,
    )


setup(
    ext_modules=cythonize(
        [extension(module, c_files) for module, c_files in MODULES.items()],
        build_dir="build/cython",
        annotate=ANNOTATE,
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    )
)
