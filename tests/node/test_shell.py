"""The shell that runs commands: what becomes of one that is told to stop, does not, or is killed."""

import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest

from ipcni.errors import Interrupted
from ipcni.shell import process
from ipcni.shell.process import Shell
from ipcni.shell.threads import meanwhile
from tests.lab import ENTRY_PATH


@pytest.fixture
def shell() -> Iterator[Shell]:
    made = Shell()
    yield made
    made.stop()


@pytest.fixture
def alarm() -> Iterator[None]:
    """Makes SIGALRM what SIGTERM is to a plugin."""

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        raise Interrupted

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.signal(signal.SIGALRM, before)


def alive(marker: str) -> bool:
    """Whether a process with that word on its command line is there, and no zombie."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker in path.read_bytes().decode(errors="replace") and int(path.parent.name) != os.getpid():
                return True
        except OSError:
            continue
    return False


def test_commands_heed_signals_that_we_ignore(shell: Shell) -> None:
    """As a worker of `ipcni serve` does, and a plugin that is undoing."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        said = shell.run(("grep", "-E", "SigIgn|SigBlk", "/proc/self/status"), "", ENTRY_PATH, 10, set()).out
    finally:
        signal.signal(signal.SIGTERM, before)
    for line in said.splitlines():
        assert not int(line.split()[1], 16) & 1 << signal.SIGTERM - 1, said
    assert said.count("\n") == 2


def test_a_command_that_ignores_signals_is_killed(shell: Shell, alarm: None) -> None:
    marker = f"sleep {os.getpid()}.25"
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        shell.run(("sh", "-c", f"trap '' TERM; {marker}; :"), "", ENTRY_PATH, 60, set())
    assert time.monotonic() - began < 20
    time.sleep(0.5)  # a process that is killed has its own end to make
    assert not alive(marker.replace(" ", "\0"))


def test_a_shell_that_is_killed_has_got_somewhere(shell: Shell) -> None:
    """Its command counts as killed: what it did has to be undone. The next one has a new shell."""
    done = shell.run(("sh", "-c", "kill -9 $PPID"), "", ENTRY_PATH, 10, set())
    assert done.status == -signal.SIGKILL
    assert shell.run(("echo", "here"), "", ENTRY_PATH, 10, set()).out == "here\n"


def test_a_shell_that_does_not_start(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0)
    done = shell.run(("true",), "", ENTRY_PATH, 10, set())
    assert (done.status, done.err) == (126, "/bin/sh does not start")
    monkeypatch.undo()
    assert shell.run(("true",), "", ENTRY_PATH, 10, set()).status == 0


def test_no_descriptors_are_left(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those of a shell that could not be started, nor a number that is another file's by then."""
    before = sorted(os.listdir("/proc/self/fd"))
    pipe = os.pipe
    calls = []

    def once() -> tuple[int, int]:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(24, "Too many open files")
        return pipe()

    monkeypatch.setattr(os, "pipe", once)
    assert shell.run(("true",), "", ENTRY_PATH, 10, set()).status == 126
    assert sorted(os.listdir("/proc/self/fd")) == before
    shell.stop()


def test_what_runs_beside_is_hurried(alarm: None) -> None:
    """Else a command that hangs there would hang us."""
    shell = Shell()
    outcomes: list[int] = []

    def beside() -> None:
        outcomes.append(shell.run(("sleep", "30"), "", ENTRY_PATH, 60, set()).status)

    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = time.monotonic()
    with pytest.raises(Interrupted), meanwhile(beside, shell.hurry):
        pass
    assert time.monotonic() - began < 15
    assert outcomes == [-signal.SIGKILL]
    for _ in range(20):  # nothing runs: nothing is lost, and undoing has a shell to work with
        shell.hurry()
        assert shell.run(("echo", "here"), "", ENTRY_PATH, 10, set()).out == "here\n"
    shell.stop()
