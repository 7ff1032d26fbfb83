"""The C files of the codec alone, under the sanitizers."""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import pytest

from tests.c_files import replay, write_inputs
from tests.wire.generate import Generator
from tests.wire.vectors import datagram, load

TARGETS = {
    "wire": ["wire", "digest"],
    "message": ["message", "json", "digest"],
    "json": ["json"],
    "digest": ["digest"],
}
GENERATED = 20_000


def cases() -> Iterator[bytes]:
    """All vectors and many generated datagrams, each whole and as what the targets below the frame take."""
    vectors = (datagram(vector) for name in ("packets", "verdicts") for vector in load(name))
    for data in chain(vectors, islice(Generator(7), GENERATED)):
        brace = data.find(b"{")
        inner = data[brace : data.rfind(b"}") + 1] if brace >= 0 else data[87:]
        yield from (data, (data[4:5] or b"\0") + inner, inner)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "inputs"
    assert write_inputs(path, cases()) > 3 * GENERATED
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_clean_under_sanitizers(target: str, inputs: Path, tmp_path: Path) -> None:
    assert replay(target, TARGETS[target], inputs, tmp_path) > 3 * GENERATED
