"""What the examples share: lines that are typed, and how a program says what it wants or what went wrong."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from srpnode import NetworkError


async def lines() -> AsyncIterator[str]:
    """What is typed, line by line, until the input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        yield line.decode(errors="replace").rstrip("\n")


def run(main: Callable[..., Coroutine[Any, Any, None]], usage: str, words: int) -> None:
    """Runs main with the words of the command line, of which there must be so many at least; Ctrl-C ends it."""
    if len(sys.argv) <= words:
        sys.exit(usage)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (NetworkError, ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
