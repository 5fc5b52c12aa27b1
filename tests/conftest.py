"""Fixtures all tests share, and where each test runs."""

import pathlib
import tempfile
import zlib
from collections.abc import Iterator

import pytest

from ipcni import install
from tests import kernel
from tests.lab import Node

LACKING = pytest.StashKey[list[str]]()
RAN_IN_VM = "ran in the virtual machine"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vm", action="store_true", help="only what this machine's kernel cannot run, in a virtual machine with Debian's own"
    )
    parser.addoption(
        "--way",
        choices=("alternate", "served", "one-shot"),
        default="alternate",
        help="how plugins on scratch nodes are called: through `ipcni serve`, each as a process of its own, or one test so, one otherwise",
    )


@pytest.fixture(scope="session")
def served_programs(request: pytest.FixtureRequest) -> Iterator[pathlib.Path | None]:
    """A folder of programs that ask `ipcni serve`, if some test is to."""
    if request.config.getoption("--way") == "one-shot":
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ipcni-served-") as folder:
        install.install(folder)
        yield pathlib.Path(folder)


def served(request: pytest.FixtureRequest) -> bool:
    """Whether this test calls plugins through the server: by its name, so that it is always the same half that does."""
    way = request.config.getoption("--way")
    return way == "served" or (way == "alternate" and zlib.crc32(request.node.nodeid.encode()) % 2 == 0)


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
def node(tmp_path: pathlib.Path, request: pytest.FixtureRequest, served_programs: pathlib.Path | None) -> Iterator[Node]:
    """A scratch node, gone with its pods after the test."""
    made = Node(tmp_path, served_programs if served(request) else None)
    yield made
    made.delete()


@pytest.fixture
def other_node(tmp_path: pathlib.Path, request: pytest.FixtureRequest, served_programs: pathlib.Path | None) -> Iterator[Node]:
    """A second scratch node, to compare the first one with."""
    made = Node(tmp_path / "other", served_programs if served(request) else None)
    yield made
    made.delete()
