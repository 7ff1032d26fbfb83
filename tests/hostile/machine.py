"""What a measurement does with the machine: one core for the node, the other for everybody else, and what a process used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CPU_GROUPS: Final = Path("/sys/fs/cgroup/cpu")  # version 1
PERIOD_US: Final = 5_000
QUOTA_LEAST_US: Final = 1_000  # of the kernel


def memory_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def cpu_s(pid: int) -> float:
    """CPU time of all its threads, to the nanosecond."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cores() -> tuple[set[int], set[int]]:
    """One for the node, another for the rest; the same set twice where there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return ({allowed[0]}, set(allowed[1:2])) if len(allowed) > 1 else (set(allowed), set(allowed))


def idle_s(where: set[int]) -> float:
    """How long these cores have done nothing, together."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return sum(int(fields[4]) for fields in lines if fields[0] in {f"cpu{core}" for core in where}) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def on(where: set[int]) -> Iterator[None]:
    """What is started meanwhile runs there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, where)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _group(name: str, pid: int, **settings: int) -> Iterator[None]:
    """The process in a scheduling group of its own, with these settings (without their prefix `cpu.`)."""
    group = CPU_GROUPS / f"srpnode-{name}-{pid}"
    group.mkdir()
    try:
        for key, value in settings.items():
            (group / f"cpu.{key}").write_text(str(value))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, OSError):
            (CPU_GROUPS / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def share(pid: int, of_core: float) -> contextlib.AbstractContextManager[None]:
    """The process gets at most this part of a core, in turns of some 5 ms: a slower machine, that one attacker can outrun."""
    if of_core >= 1:
        return contextlib.nullcontext()
    quota_us = max(int(PERIOD_US * of_core), QUOTA_LEAST_US)
    return _group("share", pid, cfs_period_us=int(quota_us / of_core), cfs_quota_us=quota_us)


def last(pid: int) -> contextlib.AbstractContextManager[None]:
    """The process gets what nobody else wants, where the machine has groups. To be nice is not enough: the kernel weighs
    sessions against each other first, as it does groups."""
    return _group("last", pid, idle=1) if CPU_GROUPS.is_dir() else contextlib.nullcontext()
