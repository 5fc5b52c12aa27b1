"""Fixtures all tests share."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.lab import Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    """A scratch node, gone with its pods after the test."""
    made = Node(tmp_path)
    yield made
    made.delete()


@pytest.fixture
def other_node(tmp_path: pathlib.Path) -> Iterator[Node]:
    """A second scratch node, to compare the first one with."""
    made = Node(tmp_path / "other")
    yield made
    made.delete()
