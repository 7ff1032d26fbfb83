"""Many tries of many pairs, several worlds at a time, and the figures that come of them."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .attempt import Try, attempt
from .figures import Spread, interval, spread
from .nat import NAT_TYPE, NatKind
from .pairing import OFFSETS_S, Mode, Pair, PairSetup, Start

IN_TIME_MS = 2100.0
TRIES_PER_WORLD = 12
OPENERS = 1024  # of one attempt


@dataclass
class Cell:
    """All tries of one pair."""

    setup: PairSetup
    tries: list[Try] = field(default_factory=list)

    @property
    def expected_types(self) -> tuple[int, ...]:
        """The NAT types that both clients have to discover.

        Introducers on one address cannot show that an address-restricted NAT keeps other addresses out.
        """
        blind = {NatKind.ADDRESS_RESTRICTED: 31} if self.setup.introducers.endswith("-one-address") else {}
        return tuple((NAT_TYPE | blind)[kind] for kind in self.setup.kinds)

    def met(self, within_ms: float = float("inf")) -> int:
        """How many tries had #join on both sides within this time after both were ready."""
        return sum(t.both_joined_ms is not None and t.both_joined_ms <= within_ms for t in self.tries)

    def missed(self) -> Counter[str]:
        """The starts of the tries that did not meet in time, and how often: `later, b first` and so on."""
        return Counter(t.start.name for t in self.tries if t.both_joined_ms is None or t.both_joined_ms > IN_TIME_MS)

    def opened(self) -> list[Try]:
        """The tries in which one side opened ports for the other: a port-restricted and a hard NAT."""
        return [t for t in self.tries if t.openers]

    def found_at_first(self) -> int:
        """In how many of those the one attempt succeeded: 1024 ports at most, and nobody was told of a proxy before."""
        return sum(t.openers <= OPENERS and t.by_proxy == (False, False) for t in self.opened())

    def times(self) -> Spread | None:
        """Milliseconds from both ready to #join on both sides, over the tries that met."""
        return spread([t.both_joined_ms for t in self.tries if t.both_joined_ms is not None])

    def times_from_introduction(self) -> Spread | None:
        """Milliseconds from the first introduction that arrived to #join on both sides."""
        return spread(
            [
                t.both_joined_ms - t.introduced_ms
                for t in self.tries
                if t.both_joined_ms is not None and t.introduced_ms is not None
            ]
        )

    def packets(self) -> Spread | None:
        """Datagrams that both clients sent until both had their #join, discovery included."""
        return spread([t.packets[0] + t.packets[1] for t in self.tries if t.both_joined_ms is not None])

    def types(self) -> Counter[tuple[int | None, ...]]:
        """The pairs of discovered types and how often."""
        return Counter(t.nat_types for t in self.tries)

    def paths(self) -> Counter[str]:
        """How texts travelled: direct, proxy, or lost; one entry per direction of a try."""
        return Counter(path or "lost" for t in self.tries for path in t.path)

    def report(self) -> dict[str, Any]:
        """Everything, for JSON."""
        in_time = self.met(IN_TIME_MS)
        return {
            "pair": self.setup.name,
            "setup": asdict(self.setup),
            "tries": len(self.tries),
            "expectedTypes": self.expected_types,
            "types": [{"types": types, "tries": count} for types, count in self.types().items()],
            "met": self.met(),
            "metInTime": in_time,
            "inTimeMs": IN_TIME_MS,
            "missedAfter": self.missed(),
            "metInTimeInterval95": interval(in_time, len(self.tries)),
            "paths": dict(self.paths()),
            "opened": len(self.opened()),
            "foundAtFirst": self.found_at_first(),
            "joinMs": (times := self.times()) and asdict(times),
            "joinFromIntroductionMs": (times := self.times_from_introduction()) and asdict(times),
            "readyMs": (times := spread([ms for t in self.tries for ms in t.ready_ms if ms])) and asdict(times),
            "packets": (packets := self.packets()) and asdict(packets),
            "each": [record(t) for t in self.tries],
        }


def record(result: Try) -> dict[str, Any]:
    """A try as JSON, without its evidence."""
    return {k: v for k, v in asdict(result).items() if k not in ("evidence", "zero_ns")}


def starts(seed: int, name: str, count: int) -> list[Start]:
    """A plan of starts for a pair: every mode with either side first, in turn; offsets at random from the seed."""
    chance = random.Random(f"{seed} {name}")
    turns = itertools.islice(itertools.cycle(itertools.product((0, 1), Mode)), count)
    return [Start(first, mode, chance.uniform(*OFFSETS_S[mode])) for first, mode in turns]


def all_pairs(kinds: Iterable[NatKind] = NatKind) -> list[tuple[NatKind, NatKind]]:
    """Every unordered pair of kinds, a kind with itself included."""
    return list(itertools.combinations_with_replacement(kinds, 2))


async def run(
    cells: Sequence[Cell],
    tries: int,
    seed: int,
    worlds: int,
    tell: Callable[[Cell, Try], None],
    seconds: float = float("inf"),
) -> None:
    """Try the setup of every cell until it has so many tries, in that many worlds at once.

    tell: hears of each try as it ends. seconds: none begins later than that; what a cell has already is not done again.
    """
    queue: asyncio.Queue[tuple[Cell, list[Start]]] = asyncio.Queue()
    end_s = time.monotonic() + seconds
    plans = []
    for cell in cells:
        plan = starts(seed, cell.setup.name, tries)
        for done in cell.tries:
            with contextlib.suppress(ValueError):  # of another seed
                plan.remove(done.start)
        plans.append(plan[: max(0, tries - len(cell.tries))])
    # Turn by turn over all pairs, so that a noisy minute of the machine does not hit one pair alone.
    for begin in range(0, tries, TRIES_PER_WORLD):
        for cell, plan in zip(cells, plans, strict=True):
            if part := plan[begin : begin + TRIES_PER_WORLD]:
                queue.put_nowait((cell, part))

    async def work() -> None:
        while not queue.empty() and time.monotonic() < end_s:
            cell, plan = queue.get_nowait()
            async with Pair(cell.setup) as pair:
                for start in plan:
                    if time.monotonic() >= end_s:
                        return
                    result = await attempt(pair, start)
                    cell.tries.append(result)
                    tell(cell, result)

    async with asyncio.TaskGroup() as group:
        for _ in range(worlds):
            group.create_task(work())


def _number(value: Spread | None, of: Callable[[Spread], float]) -> str:
    return "-" if value is None else f"{of(value):.0f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = (zip(row, widths, strict=True) for row in rows)
    return "".join("  ".join(f"{text:<{width}}" for text, width in row).rstrip() + "\n" for row in padded)


def table(cells: Sequence[Cell]) -> str:
    """The list of pairs with their figures, as text."""
    heads = (
        "pair", "types", "ready ms", "met", f"≤{IN_TIME_MS / 1000:.1f} s", "share (95 %)", "direct/proxy/lost",
        "join ms: median", "p10", "p90", "from intro", "packets", "p10", "p90", "missed",
    )  # fmt: skip
    rows = [heads]
    for cell in cells:
        tries, in_time, paths = len(cell.tries), cell.met(IN_TIME_MS), cell.paths()
        low, high = interval(in_time, tries)
        types = " ".join(
            f"{'/'.join(str(t or '?') for t in types)}{'' if types == cell.expected_types else f' ({count}x, wrong)'}"
            for types, count in cell.types().most_common()
        )
        ready = spread([ms for t in cell.tries for ms in t.ready_ms if ms is not None])
        times, packets = cell.times(), cell.packets()
        rows.append(
            (
                cell.setup.name,
                types,
                _number(ready, lambda s: s.median),
                f"{cell.met()}/{tries}",
                f"{in_time}/{tries}",
                f"{100 * in_time / max(tries, 1):.1f} % ({100 * low:.0f}-{100 * high:.0f})",
                "/".join(str(paths[path]) for path in ("direct", "proxy", "lost")),
                _number(times, lambda s: s.median),
                _number(times, lambda s: s.p10),
                _number(times, lambda s: s.p90),
                _number(cell.times_from_introduction(), lambda s: s.median),
                _number(packets, lambda s: s.median),
                _number(packets, lambda s: s.p10),
                _number(packets, lambda s: s.p90),
                "; ".join(f"{count}x {name}" for name, count in cell.missed().most_common()),
            )
        )
    return _aligned(rows)


def punched(cells: Sequence[Cell]) -> str:
    """For each pair with a port to be found: how often the one attempt found it, and how long that took."""
    text = ""
    for cell in cells:
        tries, found = len(cell.opened()), cell.found_at_first()
        if not tries:
            continue
        low, high = interval(found, tries)
        times = spread([t.both_joined_ms - t.introduced_ms for t in cell.opened() if t.both_joined_ms and t.introduced_ms])
        text += f"{cell.setup.name}: {found} of {tries} found by one attempt, {100 * found / tries:.2f} % "
        text += f"(95 %: {100 * low:.2f} to {100 * high:.2f}); from the introduction to both #join "
        text += f"{_number(times, lambda s: s.median)} ms ({_number(times, lambda s: s.p10)} to {_number(times, lambda s: s.p90)})\n"
    return text


def square(cells: Sequence[Cell]) -> str:
    """The matrix: for each pair of kinds the tries that met in time, how, and the median time."""
    by_pair = {cell.setup.kinds: cell for cell in cells if not cell.setup.same_site}
    kinds = [kind for kind in NatKind if any(kind in pair for pair in by_pair)]
    rows = [["", *kinds]]
    for one in kinds:
        row: list[str] = [one]
        for other in kinds:
            cell = by_pair.get((one, other)) or by_pair.get((other, one))
            if cell is None:
                row.append("")
                continue
            how = "+".join(path for path in ("direct", "proxy", "lost") if cell.paths()[path])
            median = _number(cell.times(), lambda s: s.median)
            row.append(f"{cell.met(IN_TIME_MS)}/{len(cell.tries)} {how} {median} ms")
        rows.append(row)
    return _aligned(rows)
