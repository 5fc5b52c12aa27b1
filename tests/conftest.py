"""Fixtures all tests share, and where each test runs."""

import pathlib
from collections.abc import Iterator

import pytest

from tests import kernel
from tests.lab import Node

LACKING = pytest.StashKey[list[str]]()
VM_TEST = "test_what_this_kernel_lacks_runs_in_a_vm"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests this kernel cannot run leave the list; one test runs them all in a virtual machine."""
    away = [
        item
        for item in items
        if any(not kernel.has(str(feature)) for mark in item.iter_markers("kernel") for feature in mark.args)
    ]
    config.stash[LACKING] = [item.nodeid for item in away]
    if not away:
        away = [item for item in items if item.name == VM_TEST]
    config.hook.pytest_deselected(items=away)
    items[:] = [item for item in items if item not in away]


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
