"""Scenarios: small TOML files that say what network to simulate. Every key is listed here, with its range and default."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).with_name("scenarios")
NAT_KINDS = ("none", "full_cone", "address_restricted", "port_restricted", "symmetric")
TYPES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
FAULT_KINDS = ("partition", "introducers", "restart", "away")


class ScenarioError(Exception):
    """The scenario cannot be simulated; the text names the file and the key."""


@dataclass(frozen=True)
class Key:
    """What a key may hold: a number from `low` to `high`, or one of `words`."""

    default: Any
    low: float = 0
    high: float = 0
    words: tuple[str, ...] = ()


KEYS: dict[str, dict[str, Key]] = {
    "": {
        "title": Key(""),
        "duration_s": Key(900.0, 1, 1_000_000),
        "until_ready_s": Key(0.0, 0, 100_000),  # the network runs so long before the clock of the scenario starts
    },
    "network": {
        "latency_median_ms": Key(40.0, 0.01, 10_000),
        "latency_p99_ms": Key(250.0, 0.01, 60_000),
        "jitter": Key(0.1, 0, 1),
        "loss": Key(0.01, 0, 1),
        "duplicate": Key(0.0, 0, 1),
        "reorder": Key(0.0, 0, 1),
        "up_bytes_per_s": Key(0, 0, 10_000_000_000),
        "up_queue_ms": Key(200.0, 1, 60_000),
    },
    "peers": {
        "count": Key(150, 1, 2_000_000),
        "initial": Key(-1, -1, 2_000_000),  # -1: all of them
        "start_over_s": Key(10.0, 0, 100_000),  # the first ones start within that time
        "lifetime": Key("exponential", words=("exponential", "uniform", "fixed", "none")),
        "lifetime_s": Key(24.0, 0.1, 100_000_000),
        "keep_alive_s": Key(30.0, 0.05, 3600),
        "selection": Key("weighed", words=("weighed", "reference")),
        "table": Key(256, 8, 100_000),
        "cache_bytes": Key(65536, 4096, 64_000_000_000),
        "silent": Key(0.0, 0, 1),  # the part that behaves well but relays nothing
    },
    "introducers": {
        "count": Key(2, 2, 64),
        "listed": Key(0, 0, 64),  # that each peer knows from the start; 0: all of them
        "table": Key(1024, 8, 1_000_000),
        "cache_bytes": Key(1_000_000, 4096, 64_000_000_000),
        "introductions": Key(16, 1, 64),
        "publish_fan_out": Key(108, 3, 120),
        "relayed_joins_per_minute": Key(60, 0, 1_000_000),
    },
    "attackers": {  # who relay nothing, and come again under new names and addresses so often that they are always the newest
        "count": Key(0, 0, 1_000_000),
        "start_s": Key(60.0, 0, 1_000_000),
        "lifetime_s": Key(20.0, 0.1, 100_000_000),
        "close": Key(False),  # a sixteenth of the usual delay to everybody
    },
    "nat": {
        **{kind: Key(1.0 if kind == "none" else 0.0, 0, 1) for kind in NAT_KINDS},
        "timeout_s": Key(60.0, 1, 100_000),
        "ports": Key(64512, 1, 64512),
        "hosts": Key(1, 1, 100_000),  # behind one box
        "hairpin": Key(False),
    },
    "publish": {
        "start_s": Key(60.0, 0, 1_000_000),
        "every_s": Key(10.0, 0.001, 1_000_000),
        "end_s": Key(0.0, 0, 1_000_000),  # 0: `watch_s` before the end
        "watch_s": Key(10.0, 0.1, 1_000_000),
        "bytes": Key(512, 16, 1024),
        "flood_per_s": Key(0.0, 0, 100_000),  # packets of other clusters, from `flooders` of the peers
        "flooders": Key(0.0, 0, 1),
    },
}
FAULT: dict[str, Key] = {
    "kind": Key("", words=FAULT_KINDS),
    "at_s": Key(0.0, 0, 1_000_000),
    "for_s": Key(0.0, 0, 1_000_000),  # 0: for good
    "share": Key(0.5, 0, 1),
}

Scenario = dict[str, Any]


def shipped() -> list[str]:
    """The names of the scenarios that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load(name: str) -> Scenario:
    """The scenario in a file, or a shipped one by its name, with all defaults filled in. Raises ScenarioError."""
    path = Path(name)
    if not path.exists() and "/" not in name and name in shipped():
        path = SHIPPED / f"{name}.toml"
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{name}: {error}; shipped scenarios: {', '.join(shipped())}") from None
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{name}: {error}") from None
    try:
        return complete(given)
    except ScenarioError as error:
        raise ScenarioError(f"{name}: {error}") from None


def complete(given: dict[str, Any]) -> Scenario:
    """Checks what was given and fills in the rest. Raises ScenarioError."""
    given = dict(given)
    faults = given.pop("fault", [])
    result: Scenario = {}
    for table, keys in KEYS.items():
        if not table:
            top = {key: value for key, value in given.items() if key not in KEYS}
            result.update(_table("", keys, top))
            continue
        part = given.get(table, {})
        if not isinstance(part, dict):
            raise ScenarioError(f"{table}: must be a table")
        result[table] = _table(table + ".", keys, part)
    if not isinstance(faults, list) or not all(isinstance(fault, dict) for fault in faults):
        raise ScenarioError("fault: must be an array of tables")
    result["fault"] = [_table(f"fault[{i}].", FAULT, fault) for i, fault in enumerate(faults)]
    _possible(result)
    return result


def _table(where: str, keys: dict[str, Key], given: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in keys:
            near = difflib.get_close_matches(name, [*keys, *KEYS] if not where else keys, 1)
            raise ScenarioError(f"{where}{name}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
    return {name: _value(where + name, key, given.get(name, key.default)) for name, key in keys.items()}


def _value(where: str, key: Key, value: Any) -> Any:
    if key.words:
        if value not in key.words:
            raise ScenarioError(f"{where}: must be one of {', '.join(key.words)}, not {value!r}")
        return value
    wanted: tuple[type, ...] = (int, float) if isinstance(key.default, float) else (type(key.default),)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise ScenarioError(f"{where}: must be {TYPES[float if float in wanted else wanted[0]]}, not {value!r}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return value
    number = float(value)
    if not key.low <= number <= key.high:  # also refuses nan
        raise ScenarioError(f"{where}: must be {key.low:g} to {key.high:g}, not {value}")
    return value


def _possible(s: Scenario) -> None:
    """Refuses what is well formed and cannot be."""
    network, peers, nat, publish = s["network"], s["peers"], s["nat"], s["publish"]
    if network["latency_p99_ms"] < network["latency_median_ms"]:
        raise ScenarioError("network.latency_p99_ms: must not be below network.latency_median_ms")
    if peers["initial"] > peers["count"]:
        raise ScenarioError("peers.initial: must not be above peers.count")
    if s["introducers"]["listed"] > s["introducers"]["count"]:
        raise ScenarioError("introducers.listed: must not be above introducers.count")
    if s["introducers"]["listed"] == 1:
        raise ScenarioError("introducers.listed: must be 0 or at least 2: a peer finds out its NAT through two")
    total = sum(nat[kind] for kind in NAT_KINDS)
    if abs(total - 1) > 1e-6:
        raise ScenarioError(f"nat.{'none'}: the parts of all kinds must add up to 1, not {total:g}")
    if publish["start_s"] + publish["watch_s"] > s["duration_s"]:
        raise ScenarioError("publish.start_s: no packet could be watched for publish.watch_s before duration_s is over")
    if s["attackers"]["count"] > 0 and s["attackers"]["start_s"] >= s["duration_s"]:
        raise ScenarioError("attackers.start_s: must be below duration_s")
    if publish["end_s"] > s["duration_s"]:
        raise ScenarioError("publish.end_s: must not be above duration_s")
    if publish["flood_per_s"] > 0 and publish["flooders"] == 0:
        raise ScenarioError("publish.flooders: must not be 0 when publish.flood_per_s is above 0")
    if peers["silent"] + publish["flooders"] >= 1:
        raise ScenarioError("peers.silent: with publish.flooders no honest peer is left")
    for i, fault in enumerate(s["fault"]):
        if fault["at_s"] >= s["duration_s"]:
            raise ScenarioError(f"fault[{i}].at_s: must be below duration_s")
