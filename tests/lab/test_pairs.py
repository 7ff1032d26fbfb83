"""Unmodified reference peers behind every pair of NATs, through one srpnode process; the long run is `make lab`.

Every pair is tried in its hardest order, with either side first: the second comes when the first has announced itself
for the last time before its next keep-alive.
"""

import asyncio
import functools
import itertools
from collections.abc import Mapping, Sequence

import pytest

from . import introducers
from .attempt import Try, try_all
from .delay import Delay
from .matrix import all_pairs
from .nat import NAT_TYPE, NatKind, NatOptions
from .pairing import Mode, Pair, PairSetup, Start

pytestmark = pytest.mark.usefixtures("reference_peers")

WORLDS = 8
LATER = [Start(0, Mode.LATER, 1.5), Start(1, Mode.LATER, 1.5)]
HARD = {NatKind.SYMMETRIC}
PUNCHED = {frozenset(pair) for pair in itertools.product(HARD, (NatKind.PORT_RESTRICTED, NatKind.DOUBLE))}


@pytest.fixture(scope="module", autouse=True)
def srpnode(reference_peers: None) -> None:
    """There is a node to test."""
    reason = introducers.missing("srpnode")
    if reason is not None:
        pytest.skip(f"NO NAT LABORATORY HERE: {reason}")


def _try_all(plan: Mapping[PairSetup, Sequence[Start]]) -> dict[PairSetup, list[Try]]:
    return dict(zip(plan, asyncio.run(try_all(list(plan.items()), WORLDS)), strict=True))


@functools.cache
def matrix() -> dict[PairSetup, list[Try]]:
    """All pairs, tried once for all tests of this module, several worlds at a time."""
    # Behind two NATs of one kind it does not matter who comes first.
    return _try_all({PairSetup(pair): LATER[: len(set(pair))] for pair in all_pairs()})


@pytest.mark.parametrize("pair", all_pairs(), ids="-".join)
def test_pair_discovers_its_types_meets_on_both_sides_and_talks(pair: tuple[NatKind, NatKind]) -> None:
    for result in matrix()[PairSetup(pair)]:
        evidence = f"{result.start.name}\n{result.evidence}"
        assert result.nat_types == tuple(NAT_TYPE[kind] for kind in pair), evidence
        assert result.both_joined_ms is not None, evidence
        if set(pair) == HARD:
            assert result.path == ("proxy", "proxy"), evidence
        elif frozenset(pair) in PUNCHED:
            # Found by chance, else by proxy. A reference peer that is found after it chose the proxy sends to the proxy
            # from its new socket, an endpoint that nobody knows; a pong that comes late, behind its opening bytes,
            # finds the socket deaf. So one direction may stay silent for a while.
            assert result.path != (None, None), evidence
        else:
            assert result.path == ("direct", "direct"), evidence
        assert result.errors == (), evidence


@pytest.mark.parametrize("kind", [NatKind.NONE, NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED])
def test_a_symmetric_peer_learns_of_an_easy_one_where_datagrams_overtake_each_other(kind: NatKind) -> None:
    """It is connected by a pong, which names no cluster: its #join has to come another way, whatever comes first."""
    setup = PairSetup((kind, NatKind.SYMMETRIC), delay=Delay(30, 20))
    offsets_s = {Mode.TOGETHER: 0.0, Mode.SOON: 0.5}
    starts = [Start(first, mode, offset_s) for first in (0, 1) for mode, offset_s in offsets_s.items()]
    for result in _try_all({setup: starts})[setup]:
        assert result.both_joined_ms is not None, f"{result.start.name}\n{result.evidence}"


def test_one_address_cannot_tell_an_address_restricted_nat_from_an_open_one() -> None:
    kinds = (NatKind.ADDRESS_RESTRICTED, NatKind.PORT_RESTRICTED)
    setup = PairSetup(kinds, introducers="srpnode-one-address")
    (result,) = _try_all({setup: LATER[:1]})[setup]
    assert result.nat_types == (31, 7), result.evidence
    assert result.both_joined_ms is not None, result.evidence


@pytest.mark.parametrize("hairpin", [True, False], ids=["hairpin", "no hairpin"])
def test_two_peers_behind_one_router(hairpin: bool) -> None:
    kinds = (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED)
    setup = PairSetup(kinds, options=NatOptions(hairpin=hairpin), same_site=True)
    (result,) = _try_all({setup: LATER[:1]})[setup]
    path = "direct" if hairpin else "proxy"
    assert result.both_joined_ms is not None, result.evidence
    assert result.path == (path, path), result.evidence


def test_peers_meet_although_a_tenth_of_all_datagrams_is_lost() -> None:
    setup = PairSetup((NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED), loss_per_mille=100)
    (result,) = _try_all({setup: LATER[:1]})[setup]
    assert result.both_joined_ms is not None, result.evidence


async def _texts_after_silence(silence_s: float) -> tuple[str | None, str | None]:
    options = NatOptions(unreplied_timeout_s=2, replied_timeout_s=2)
    kinds = (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED)
    async with Pair(PairSetup(kinds, options=options)) as pair, pair.session(LATER[0]) as session:
        assert await session.ready()
        assert await session.meet()
        await asyncio.sleep(silence_s)
        a, b = session.clients
        return await session.text(b, a), await session.text(a, b)


def test_without_keep_alives_short_mappings_close() -> None:
    """The first text is lost at the other router; it opens the way for the answer."""
    assert asyncio.run(_texts_after_silence(5.0)) == (None, "direct")
