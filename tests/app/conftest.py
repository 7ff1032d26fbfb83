"""Fixtures of the tests that run the real command."""

from collections.abc import Callable, Iterator

import pytest

from tests.app.node import Node


@pytest.fixture
def make_node() -> Iterator[Callable[[], Node]]:
    """Makes nodes that are not started yet, their configuration not written."""
    made: list[Node] = []

    def make() -> Node:
        made.append(Node())
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
def node(make_node: Callable[[], Node]) -> Node:
    """A running node with two identities on 127.0.0.1."""
    made = make_node()
    made.write()
    made.start()
    return made
