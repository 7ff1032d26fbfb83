"""Our decoder against the reference's: the same datagrams accepted, the same fields read.

The invariant: for every datagram, both accept it with the same content or both refuse it, but for the rows of
docs/wire-differences.md. Run as a program for long: python -m tests.wire.compare [SEED] [CASES] (0: until stopped).
"""

import math
import re
import sys
from collections import Counter
from itertools import islice
from typing import Any

from srpnode.core import codec
from tests.wire.generate import Generator
from tests.wire.reference import Reference

NAMES = {
    "cluster_id": "clusterId",
    "subcluster_id": "subclusterId",
    "previous_id": "previousId",
    "packet_id": "packetId",
    "next_id": "nextId",
    "usr1": "usr1",
    "usr2": "usr2",
    "usr3": "usr3",
    "usr4": "usr4",
    "sig": "sig",
}
OCTET = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
ADDRESS = re.compile(rf"{OCTET}(\.{OCTET}){{3}}", re.ASCII)
PATTERNS = {
    "cacheSummaryHash": re.compile(r"[A-Fa-f0-9]{40}"),
    "reflectionId": re.compile(r"[A-Fa-f0-9]{12}"),
    "pingId": re.compile(r"[A-Fa-f0-9]{12,13}"),
}
PEER_ID = re.compile(r"[A-Fa-f0-9]{64}")
Value = str | bool | int | float
JSON_TYPES = (codec.PING, codec.PONG, codec.INTRO, codec.JOIN, codec.QUERY)


def expected_value(key: str, kind: str, value: Any) -> Value | None:
    """What read_message must say of a value that the reference parsed; None when it must leave the key out."""
    if key.endswith("PeerId") or key == "packetId":
        return str(value).lower() if kind == "string" and PEER_ID.fullmatch(value) else None
    if key in PATTERNS:
        if kind != "string" or not PATTERNS[key].fullmatch(value):
            return None
        return str(value).lower() if key == "cacheSummaryHash" else str(value)
    if key in ("address", "rendezvousAddress"):
        return str(value) if kind == "string" and ADDRESS.fullmatch(value) else None
    if key == "key":
        return str(value) if kind == "string" and value.isascii() and len(value) <= 128 else None
    if key.startswith("is") or key == "rejected":
        return bool(value) if kind == "boolean" else None
    if kind != "number":
        return None
    number = float(value)
    if not math.isfinite(number):
        return None
    if key in ("natType", "rendezvousType"):
        return int(number) if number == int(number) and 0 <= number <= 31 and int(number) & 5 == 5 else None
    if key in ("port", "rendezvousPort", "probeExternalPort"):
        return int(number) if number == int(number) and 1 <= number <= 65535 else None
    return number


def difference(theirs: dict[str, Any] | None, data: bytes, verdict: str) -> str | None:
    """The row of docs/wire-differences.md that explains a different verdict; None when none does."""
    if verdict == "deep" and theirs is not None:
        return "deep"
    if verdict == "ok" and theirs is None:
        frame = codec.decode(data)
        # The reference fails in turning a list into bytes.
        if frame["message"].lstrip(b" \t\r\n").startswith(b"[") and b"toString" in frame["message"]:
            return "list"
    return None


def compare(data: bytes, theirs: dict[str, Any] | None) -> tuple[str, str | None]:
    """Our verdict on a datagram and the difference met, if any. Raises AssertionError on an undocumented one."""
    verdict = codec.verdict(data)
    if theirs is not None and theirs["version"] != 6:
        theirs = None  # decoded, then dropped at once
    if (theirs is not None) != (verdict == "ok"):
        row = difference(theirs, data, verdict)
        assert row is not None, (verdict, theirs, data.hex())
        return verdict, row
    if theirs is None:
        return verdict, None
    ours = codec.decode(data)
    assert [ours["type"], ours["clock"], ours["hops"], ours["index"], ours["ttl"]] == [
        theirs[name] for name in ("type", "clock", "hops", "index", "ttl")
    ], data.hex()
    for name, other in NAMES.items():
        assert ours[name].hex() == theirs[other], (name, data.hex())  # type: ignore[literal-required]
    if "json" not in theirs and "message" in theirs and not ours["message"].lstrip(b" \t\r\n").startswith(b"["):
        assert ours["message"].hex() == theirs["message"], data.hex()
    read = codec.read_message(data)
    expected: dict[str, Value] = {}
    if ours["type"] in JSON_TYPES:
        for key, (kind, value) in theirs.get("json", {}).items():
            if ours["type"] == codec.QUERY and key != "packetId":
                continue
            wanted = expected_value(key, kind, value)
            if wanted is not None:
                expected[key] = wanted
    if read.get("key") != expected.get("key"):
        # Kept as it is written, escapes and all: both the limit and ASCII are of what is written.
        assert b"\\" in ours["message"], data.hex()
        expected.pop("key", None)
        read.pop("key", None)
    if ours["type"] == codec.QUERY and expected and not read:
        assert ours["message"].count(b"[") + ours["message"].count(b"{") > 64, data.hex()
        return verdict, "deep"
    assert read == expected, data.hex()
    return verdict, None


def run(seed: int, cases: int, reference: Reference) -> tuple[Counter[str], Counter[str]]:
    """Compares so many generated datagrams; the verdicts and the documented differences that were met."""
    verdicts: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    stream = iter(Generator(seed))
    left = cases
    while left > 0:
        batch = list(islice(stream, min(left, 1000)))
        left -= len(batch)
        for data, theirs in zip(batch, reference.decode(batch), strict=True):
            verdict, row = compare(data, theirs)
            verdicts[verdict] += 1
            if row is not None:
                rows[row] += 1
    return verdicts, rows


def main() -> None:
    """The long run: prints a line for each 100 000 cases."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    cases = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    done = 0
    with Reference() as reference:
        while cases == 0 or done < cases:
            verdicts, rows = run(seed, 100_000, reference)
            done += 100_000
            print(f"seed {seed}: {done} cases, {dict(verdicts.most_common())}, differences {dict(rows)}", flush=True)
            seed += 1


if __name__ == "__main__":
    main()
