"""What long fuzzing found: the fewest inputs that reach everything, run again under the sanitizers (fuzz/run, fuzz/keep)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.c_files import ROOT, replay
from tests.core import test_tables
from tests.wire import test_sanitized

TARGETS = {**test_sanitized.TARGETS, **test_tables.TARGETS}
CORPORA = ROOT / "fuzz" / "corpus"
LARGEST_BYTES = 400_000  # of all together


def test_each_target_has_one() -> None:
    assert {path.name for path in CORPORA.iterdir()} == set(TARGETS)
    assert {path.stem for path in (ROOT / "fuzz").glob("fuzz_*.c")} == {f"fuzz_{target}" for target in TARGETS}
    assert sum(path.stat().st_size for path in CORPORA.iterdir()) < LARGEST_BYTES


@pytest.mark.parametrize("target", TARGETS)
def test_clean_under_sanitizers(target: str, tmp_path: Path) -> None:
    """AddressSanitizer with its leak checker, UndefinedBehaviorSanitizer, and every check of the target."""
    assert replay(target, TARGETS[target], CORPORA / target, tmp_path) > 10
