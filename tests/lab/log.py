"""Tries in a file, one JSON object a line: a long run is done in pieces, and its figures are of all pieces together."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .attempt import Try
from .delay import Delay
from .matrix import Cell, record
from .nat import NatKind, NatOptions
from .pairing import Mode, PairSetup, Start


def append(path: Path, cell: Cell, result: Try) -> None:
    """Adds one try."""
    with path.open("a") as file:
        file.write(json.dumps({"setup": asdict(cell.setup), "try": record(result)}) + "\n")


def _setup(said: dict[str, Any]) -> PairSetup:
    one, other = (NatKind(kind) for kind in said["kinds"])
    first, second = said["clients"]
    return PairSetup(
        (one, other),
        clients=(first, second),
        introducers=said["introducers"],
        options=NatOptions(**said["options"]),
        same_site=said["same_site"],
        loss_per_mille=said["loss_per_mille"],
        delay=Delay(**said["delay"]),
        silence_s=said.get("silence_s", 0.0),
    )


def _try(said: dict[str, Any]) -> Try:
    start = said["start"]
    rest: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in said.items() if key != "start"
    }
    return Try(Start(start["first"], Mode(start["mode"]), start["offset_s"]), **rest)


def read(paths: Iterable[Path]) -> list[Cell]:
    """A cell for each setup that any of the files has tries of, in their order."""
    cells: dict[PairSetup, Cell] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            said = json.loads(line)
            setup = _setup(said["setup"])
            cells.setdefault(setup, Cell(setup)).tries.append(_try(said["try"]))
    return list(cells.values())
