"""Fixtures all tests share, and where each test runs."""

import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from ipcni import install
from tests import kernel, lab
from tests.lab import Node

LACKING = pytest.StashKey[list[str]]()
RAN_IN_VM = "ran in the virtual machine"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vm", action="store_true", help="only what this machine's kernel cannot run, in a virtual machine with Debian's own"
    )
    parser.addoption("--served", action="store_true", help="plugins on scratch nodes are asked of `ipcni serve`")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--served"):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="ipcni-served-"))
        install.install(str(folder))
        lab.served.append(folder)


def pytest_unconfigure() -> None:
    for folder in lab.served:
        shutil.rmtree(folder)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests this kernel cannot run leave the list; those of tests/vm, which run them in a virtual machine, come first."""
    lacking = {
        item
        for item in items
        if any(not kernel.has(str(feature)) for mark in item.iter_markers("kernel") for feature in mark.args)
    }
    config.stash[LACKING] = [item.nodeid for item in items if item in lacking]
    tier = [item for item in items if item.path.parent.name == "vm"] if lacking else []
    here = [] if config.getoption("--vm") else [item for item in items if item not in lacking and item.path.parent.name != "vm"]
    config.hook.pytest_deselected(items=[item for item in items if item not in tier and item not in here])
    items[:] = tier + here


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests ran where."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    away = [int(str(value)) for report in reports for name, value in report.user_properties if name == RAN_IN_VM]
    terminalreporter.write_line(f"{len(reports) - len(away)} tests ran on this kernel, {sum(away)} in the virtual machine")


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
