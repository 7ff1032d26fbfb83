"""`python -m tests.lab`: prints the matrix of NAT pairs. See docs/nat-lab.md."""

import argparse
import asyncio
import json
import os
import platform
import re
import sys
from pathlib import Path

from . import introducers, log, matrix, recovery
from .attempt import Try
from .clients import KINDS
from .delay import Delay
from .nat import NatKind, NatOptions
from .pairing import PairSetup
from .requirements import missing


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Who meets whom behind which NAT.")
    parser.add_argument("--introducers", choices=introducers.CHOICES, default="srpnode")
    parser.add_argument("--clients", default="reference,reference", help=f"two of: {', '.join(KINDS)}")
    parser.add_argument("--pairs", help="KIND-KIND,… with kinds as in the table; without it all")
    parser.add_argument("--same-site", action="store_true", help="pairs behind one router, with and without hairpin")
    parser.add_argument(
        "--address-change",
        type=float,
        metavar="KEEP_ALIVE_S",
        help="instead: how long each pair needs to talk again after the address of its first site has changed",
    )
    parser.add_argument("--tries", type=int, default=18, help="per pair; best a multiple of 6")
    parser.add_argument("--worlds", type=int, default=4, help="how many to run at once")
    parser.add_argument("--seed", type=int, default=1, help="of the starts")
    parser.add_argument("--loss", type=int, default=0, metavar="PER_MILLE", help="datagrams lost on the internet")
    parser.add_argument("--delay", metavar="MS,MS", default="0,0", help="one way, and jitter, of each site; 0,0")
    parser.add_argument("--timeouts", metavar="S,S", default="30,120", help="life of a mapping before, after an answer; 30,120")
    parser.add_argument("--silence", type=float, default=0.0, metavar="S", help="from the meeting to the texts")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep each try there; those that it has are not done again")
    parser.add_argument(
        "--for", type=float, default=float("inf"), metavar="S", dest="seconds", help="begin no try later than that"
    )
    parser.add_argument("--show", type=Path, nargs="+", metavar="FILE", help="instead: the figures of these logs together")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there; - for standard output")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="write the trace of each failed try there")
    parser.add_argument("--all-traces", action="store_true", help="of each other try as well")
    return parser.parse_args()


def _pairs(text: str | None) -> list[tuple[NatKind, NatKind]]:
    if text is None:
        return matrix.all_pairs()
    names = "|".join(re.escape(kind) for kind in NatKind)
    pairs = []
    for part in text.split(","):
        found = re.fullmatch(f"({names})-({names})", part.strip())
        if found is None:
            raise SystemExit(f"--pairs: {part!r} is no pair of {', '.join(NatKind)}")
        pairs.append((NatKind(found[1]), NatKind(found[2])))
    return pairs


def _setups(arguments: argparse.Namespace) -> list[PairSetup]:
    clients = tuple(arguments.clients.split(","))
    if len(clients) != 2 or not set(clients) <= set(KINDS):
        raise SystemExit(f"--clients: two of {', '.join(KINDS)}")
    unreplied_s, replied_s = (int(part) for part in arguments.timeouts.split(","))
    delay = Delay(*(float(part) for part in arguments.delay.split(",")))
    common = {
        "clients": clients,
        "introducers": arguments.introducers,
        "loss_per_mille": arguments.loss,
        "delay": delay,
        "silence_s": arguments.silence,
    }
    if not arguments.same_site:
        return [
            PairSetup(pair, options=NatOptions(False, unreplied_s, replied_s), **common) for pair in _pairs(arguments.pairs)
        ]
    return [
        PairSetup((kind, kind), options=NatOptions(hairpin, unreplied_s, replied_s), same_site=True, **common)
        for kind in (NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED, NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC)
        for hairpin in (False, True)
        if not (hairpin and kind is NatKind.SYMMETRIC)
    ]


def main() -> int:
    """Run it; exit status 2 when the machine lacks something."""
    arguments = _arguments()
    if arguments.show:
        _print(log.read(arguments.show), arguments)
        return 0
    setups = _setups(arguments)
    reasons = [missing(), introducers.missing(arguments.introducers)]
    reasons += [KINDS[name].missing() for setup in setups for name in setup.clients]
    reason = next(filter(None, reasons), None)
    if reason is not None:
        print(f"no laboratory here: {reason}", file=sys.stderr)
        return 2
    if arguments.address_change:
        return _address_change(setups, arguments)
    return _matrix(setups, arguments)


def _address_change(setups: list[PairSetup], arguments: argparse.Namespace) -> int:
    keep_alive_ms = round(arguments.address_change * 1000)
    print(f"{arguments.clients} through {arguments.introducers}: a new address, keep-alive {keep_alive_ms} ms\n")
    results = asyncio.run(recovery.run(setups, keep_alive_ms, arguments.worlds))
    for setup, result in zip(setups, results, strict=True):
        print(f"{setup.name:<40} did not meet" if result is None else result.line())
    return 0


def _matrix(setups: list[PairSetup], arguments: argparse.Namespace) -> int:
    if arguments.traces:
        arguments.traces.mkdir(parents=True, exist_ok=True)
    done = 0
    known = {cell.setup: cell for cell in log.read([arguments.log])} if arguments.log and arguments.log.exists() else {}
    cells = [known.get(setup, matrix.Cell(setup)) for setup in setups]

    def tell(cell: matrix.Cell, result: Try) -> None:
        nonlocal done
        done += 1
        met_ms = result.both_joined_ms
        failed = met_ms is None or met_ms > matrix.IN_TIME_MS or result.nat_types != cell.expected_types
        told = "no" if met_ms is None else f"{met_ms:.0f} ms"
        print(f"{done:5} {cell.setup.name}: {told}", file=sys.stderr)
        if arguments.log:
            log.append(arguments.log, cell, result)
        if arguments.traces and (failed or arguments.all_traces):
            name = f"{cell.setup.name.replace(' ', '')}-{len(cell.tries)}-{'failed' if failed else 'met'}.txt"
            (arguments.traces / name).write_text(f"{result.start}\n{result.evidence}")

    asyncio.run(matrix.run(cells, arguments.tries, arguments.seed, arguments.worlds, tell, arguments.seconds))
    _print(cells, arguments)
    return 0


def _print(cells: list[matrix.Cell], arguments: argparse.Namespace) -> None:
    """The figures: as JSON, as tables, or both."""
    report = {
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(), "load": os.getloadavg()},
        "seed": arguments.seed,
        "pairs": [cell.report() for cell in cells],
    }
    if arguments.json and str(arguments.json) == "-":
        print(json.dumps(report, indent=1))
        return
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    tables: dict[str, list[matrix.Cell]] = {}
    for cell in cells:
        tables.setdefault(cell.setup.circumstances, []).append(cell)
    for circumstances, alike in tables.items():
        print(f"{circumstances}\n")
        print(matrix.square(alike))
        print(matrix.table(alike))
        print(matrix.punched(alike), end="")
        met, total = sum(cell.met(matrix.IN_TIME_MS) for cell in alike), sum(len(cell.tries) for cell in alike)
        print(f"met in time: {met} of {total}\n")


if __name__ == "__main__":
    sys.exit(main())
