"""`srpnode top`: the running node, live, on a terminal. A frame is a list of lines, made from status answers alone."""

import collections
import contextlib
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any

from srpnode.info import NAT_NAMES
from srpnode.show import amount, duration

INTERVAL_S = 1.0
OVERVIEW_EVERY = 5  # frames
HISTORY = 240  # seconds
BARS = "▁▂▃▄▅▆▇█"
TYPES = ("ping", "pong", "join", "intro", "publish", "stream", "sync", "query")

Figures = dict[str, Any]


class Style:
    """Terminal attributes; plain ones for a pipe or a test."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


class History:
    """Rates of the last minutes, from the differences of two status answers."""

    def __init__(self) -> None:
        self.packets_in: collections.deque[float] = collections.deque(maxlen=HISTORY)
        self.packets_out: collections.deque[float] = collections.deque(maxlen=HISTORY)
        self.dropped: collections.deque[float] = collections.deque(maxlen=HISTORY)
        self.bits_in: collections.deque[float] = collections.deque(maxlen=HISTORY)
        self.bits_out: collections.deque[float] = collections.deque(maxlen=HISTORY)
        self.types: dict[str, tuple[float, float]] = {}
        self.reasons: list[tuple[str, float, int]] = []
        self._last: Figures | None = None

    def add(self, now: Figures) -> None:
        """Takes in one more answer. A node that was restarted starts anew."""
        last, self._last = self._last, now
        if last is None or last["pid"] != now["pid"]:
            return
        seconds = max(now["uptime"] - last["uptime"], 1e-3)

        def rate(part: str, name: str) -> float:
            return float((_sum(now, part, name) - _sum(last, part, name)) / seconds)

        self.packets_in.append(rate("udp", "in_datagrams"))
        self.packets_out.append(rate("udp", "out_datagrams"))
        self.bits_in.append(8 * rate("udp", "in_bytes"))
        self.bits_out.append(8 * rate("udp", "out_bytes"))
        self.types = {name: (rate("received", name), rate("sent", name)) for name in TYPES}
        names = sorted({name for identity in now["identities"] for name in identity["drops"]})
        reasons = [(name, rate("drops", name), _sum(now, "drops", name)) for name in names]
        self.reasons = sorted((item for item in reasons if item[2]), key=lambda item: (-item[1], -item[2]))
        self.dropped.append(sum(item[1] for item in reasons))


def _sum(figures: Figures, part: str, name: str) -> int:
    return sum(int(identity[part].get(name, 0)) for identity in figures["identities"])


def spark(values: "collections.deque[float]", width: int) -> str:
    """The last `width` values as a row of bars, the highest one full."""
    shown = list(values)[-width:]
    most = max(shown, default=0.0)
    if most <= 0:
        return "▁" * len(shown)
    return "".join(BARS[min(int(value / most * (len(BARS) - 1) + 0.5), len(BARS) - 1)] for value in shown)


def meter(share: float, width: int) -> str:
    """A bar that is filled to `share` (0 … 1)."""
    filled = round(max(0.0, min(share, 1.0)) * width)
    return "█" * filled + "░" * (width - filled)


def frame(figures: Figures, overview: Figures, history: History, width: int, height: int, style: Style) -> list[str]:
    """The lines of one screen, at most `height`."""
    lines = list(_frame(figures, overview, history, max(width, 60), style))
    return lines[:height]


def _frame(figures: Figures, overview: Figures, history: History, width: int, style: Style) -> Iterator[str]:
    yield (
        style("1", f"srpnode {figures['version']}") + f"   up {duration(figures['uptime'])}   process {figures['pid']}"
    )
    volume = figures["volume"]
    quota = f" of {amount(volume['quota'], 'B')}" if volume["quota"] else ""
    yield f"{volume['month']}: {amount(volume['used'], 'B')}{quota} carried   {figures['blocks']} blocks"
    yield ""
    room = max(width - 36, 10)
    for label, values, unit, code in (
        ("packets in", history.packets_in, "/s", "32"),
        ("packets out", history.packets_out, "/s", "36"),
        ("dropped", history.dropped, "/s", "31"),
        ("bits in", history.bits_in, "b/s", "32"),
        ("bits out", history.bits_out, "b/s", "36"),
    ):
        current = amount(values[-1], unit) if values else "-"
        yield f"{label:<12}{current:>12}  " + style(code, spark(values, room))
    yield ""
    yield style("1", f"{'IDENTITY':<10}{'ADDRESS':<23}{'PEERS':>9}{'CONNECTED':>11}  CACHE")
    for identity in figures["identities"]:
        peers, cache = identity["peers"], identity["cache"]
        where = f"{identity['address']}:{identity['port']}"
        share = cache["bytes"] / cache["max_bytes"] if cache["max_bytes"] else 0.0
        yield (
            f"{identity['name'][:9]:<10}{where:<23}"
            f"{peers['known']:>9}{peers['connected']:>11}  {style('35', meter(share, 12))} "
            f"{cache['packets']} packets, {amount(cache['bytes'], 'B')}"
        )
    yield ""
    yield from _columns(_types(history, style), _reasons(history, style), width)
    yield ""
    yield from _columns(_nats(overview, style), _clusters(overview, style), width)


def _types(history: History, style: Style) -> list[str]:
    rows = [style("1", f"{'TYPE':<10}{'IN/s':>10}{'OUT/s':>10}")]
    return rows + [f"{name:<10}{amount(got):>10}{amount(sent):>10}" for name, (got, sent) in history.types.items()]


def _reasons(history: History, style: Style) -> list[str]:
    rows = [style("1", f"{'DROPPED FOR':<20}{'/s':>8}{'EVER':>10}")]
    if not history.reasons:
        return [*rows, "nothing"]
    return rows + [
        f"{name:<20}{amount(rate):>8}{amount(ever):>10}" for name, rate, ever in history.reasons[: len(TYPES)]
    ]


def _nats(overview: Figures, style: Style) -> list[str]:
    kinds = sorted(overview.get("natTypes", {}).items(), key=lambda item: -item[1])
    total = sum(count for _, count in kinds) or 1
    rows = [style("1", "PEERS BY NAT TYPE")]
    return rows + [
        f"{NAT_NAMES.get(int(kind), kind):<20}{count:>7} {style('34', meter(count / total, 10))}"
        for kind, count in kinds[:6]
    ]


def _clusters(overview: Figures, style: Style) -> list[str]:
    rows = [style("1", f"{'CLUSTER':<20}{'PEERS':>8}")]
    found = sorted(overview.get("clusters", {}).items(), key=lambda item: -item[1])
    return rows + ([f"{cluster:<20}{count:>8}" for cluster, count in found[:6]] or ["none yet"])


def _columns(left: list[str], right: list[str], width: int) -> Iterator[str]:
    """Two tables side by side; the left one gets 44 characters of room."""
    for row in range(max(len(left), len(right))):
        one = left[row] if row < len(left) else ""
        other = right[row] if row < len(right) else ""
        yield one + " " * max(44 - _visible(one), 1) + other


def _visible(text: str) -> int:
    """Characters that take room: all but escape sequences."""
    count, skipping = 0, False
    for char in text:
        if char == "\x1b":
            skipping = True
        elif skipping:
            skipping = char != "m"
        else:
            count += 1
    return count


def run(ask: Callable[[str], Any], frames: int) -> None:
    """Draws until q or Ctrl-C, or `frames` times when that is not 0. On a pipe each frame is plain text."""
    history = History()
    live = sys.stdout.isatty() and sys.stdin.isatty()
    style = Style(sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    overview: Figures = {}
    with _screen() if live else contextlib.nullcontext():
        number = 0
        while True:
            figures = ask("status")
            if number % OVERVIEW_EVERY == 0:
                overview = ask("overview")
            history.add(figures)
            size = shutil.get_terminal_size((100, 40))
            lines = frame(figures, overview, history, size.columns, size.lines - 1 if live else 200, style)
            if live:
                sys.stdout.write("\x1b[H" + "".join(line + "\x1b[K\r\n" for line in lines) + "\x1b[J")
            else:
                print("\n".join(lines), end="\n\n")
            sys.stdout.flush()
            number += 1
            if number == frames or (_quit_asked(INTERVAL_S) if live else _slept(INTERVAL_S)):
                return


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _quit_asked(seconds: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b"\x03", b"")


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """The terminal's second screen, without cursor and line editing; as before when the context ends."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
