"""A loop under a filter of system calls that refuses epoll_pwait2 with EPERM, as a service manager's may; prints features."""

from __future__ import annotations

import ctypes
import errno
import json
import struct

from tests.net.echo import Client, running

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
EPOLL_PWAIT2 = 441  # on every architecture


def refuse(system_call: int, error: int) -> None:
    """From now on this process's call fails with the error."""
    steps = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, system_call),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | error),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def main() -> None:
    refuse(EPOLL_PWAIT2, errno.EPERM)
    with running() as at, Client(at.to) as client:
        client.ask(range(200))
        assert at.loop.beat(30) >= 0
        before = at.count("rounds")
        assert not at.loop.join(0.3)
        print(json.dumps({**at.loop.features(), "idle_rounds": at.count("rounds") - before}))


main()
