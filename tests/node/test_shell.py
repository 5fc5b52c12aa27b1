"""The shell that runs commands: what becomes of one that is told to stop, does not, or is killed."""

import contextlib
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ipcni.errors import Interrupted, StepFailed
from ipcni.model import Netns, Step
from ipcni.settings import Settings
from ipcni.shell import process
from ipcni.shell import shell as shells
from ipcni.shell.batch import USUAL
from ipcni.shell.run import Runner
from ipcni.shell.shell import Shell
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


def running(marker: str) -> list[int]:
    """The processes with that word on their command line, but zombies and ourselves."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def wait(condition: Callable[[], bool]) -> bool:
    """Whether something comes true within some seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_commands_heed_signals_that_we_ignore(shell: Shell) -> None:
    """As a worker of `ipcni serve` does, and a plugin that is undoing."""
    ours = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in ours]
    try:
        said = shell.run(("grep", "-E", "SigIgn|SigBlk", "/proc/self/status"), "", ENTRY_PATH, 10, set()).out
    finally:
        for number, handler in zip(ours, before, strict=True):
            signal.signal(number, handler)
    for line in said.splitlines():
        assert not any(int(line.split()[1], 16) & 1 << number - 1 for number in ours), said
    assert said.count("\n") == 2


def test_a_command_that_ignores_signals_is_killed(shell: Shell, alarm: None) -> None:
    marker = f"sleep {os.getpid()}.25"
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        shell.run(("sh", "-c", f"trap '' TERM; {marker}; :"), "", ENTRY_PATH, 60, set())
    assert time.monotonic() - began < 20
    time.sleep(0.5)  # a process that is killed has its own end to make
    assert not running(marker.replace(" ", "\0"))


def test_a_shell_that_is_killed_has_got_somewhere(shell: Shell) -> None:
    """Its command counts as killed: what it did has to be undone. The next one has a new shell."""
    done = shell.run(("sh", "-c", "kill -9 $PPID"), "", ENTRY_PATH, 10, set())
    assert done.status == -signal.SIGKILL
    assert shell.run(("echo", "here"), "", ENTRY_PATH, 10, set()).out == "here\n"


def test_a_shell_that_does_not_start(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shell, "_say", lambda self, *_: self._kill(signal.SIGKILL) or process.OUT_OF_TIME)
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


# -- programs that wait


@pytest.fixture
def reader(tmp_path: pathlib.Path) -> tuple[str, ...]:
    """A program that says what it was given to read, and who it is."""
    file = tmp_path / "reader"
    file.write_text("#!/bin/sh\nwhile read -r line; do echo $line; done\necho $$\n")
    file.chmod(0o755)
    return (str(file), "-")


def test_a_program_waits_for_what_it_is_to_read(shell: Shell, reader: tuple[str, ...]) -> None:
    assert shell.run(("true",), "", ENTRY_PATH, 10, set(), reader).status == 0
    assert wait(lambda: len(running(reader[0])) == 1)
    (pid,) = running(reader[0])
    said = shell.run(reader, "this\n", ENTRY_PATH, 10, set(), ("cat",)).out
    assert said == f"this\n{pid}\n"
    assert shell.run(reader, "that\n", ENTRY_PATH, 10, set()).out != f"that\n{pid}\n"
    assert shell.run(("cat",), "other\n", ENTRY_PATH, 10, set()).out == "other\n"


def test_a_program_that_died_waiting_is_started_again(shell: Shell, reader: tuple[str, ...]) -> None:
    """It has read nothing, so that nothing is done twice."""
    shell.run(("true",), "", ENTRY_PATH, 10, set(), reader)
    assert wait(lambda: len(running(reader[0])) == 1)
    (pid,) = running(reader[0])
    os.kill(pid, signal.SIGKILL)
    assert wait(lambda: running(reader[0]) == [])
    done = shell.run(reader, "this\n", ENTRY_PATH, 10, set())
    assert (done.status, done.out.splitlines()[0]) == (0, "this")


def test_a_program_that_is_killed_is_remarked_on_once(shell: Shell, tmp_path: pathlib.Path) -> None:
    """As of any command; the next one says what is its own."""
    file = tmp_path / "victim"
    file.write_text("#!/bin/sh\nread line\nkill -SEGV $$\n")
    file.chmod(0o755)
    shell.run(("true",), "", ENTRY_PATH, 10, set(), (str(file),))
    done = shell.run((str(file),), "this\n", ENTRY_PATH, 10, set())
    assert (done.status, "Segmentation fault" in done.err) == (-signal.SIGSEGV, True)
    assert shell.run(("true",), "", ENTRY_PATH, 10, set()).err == ""


def test_a_program_that_cannot_be_started_says_so(shell: Shell) -> None:
    """By itself, not through what was started ahead."""
    nowhere = ("ip", "-n", "no-such-netns", "-batch", "-")
    shell.run(("true",), "", ENTRY_PATH, 10, set(), nowhere)
    done = shell.run(nowhere, "link show\n", ENTRY_PATH, 10, set())
    assert done.status == 255
    assert 'Cannot open network namespace "no-such-netns"' in done.err


def test_a_program_that_was_replaced_meanwhile_is_not_used(shell: Shell, reader: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    shell.run(("true",), "", ENTRY_PATH, 10, set(), reader)
    assert wait(lambda: len(running(reader[0])) == 1)
    newer = tmp_path / "newer"
    newer.write_text("#!/bin/sh\necho newer\n")
    newer.chmod(0o755)
    newer.replace(reader[0])
    assert shell.run(reader, "this\n", ENTRY_PATH, 10, set()).out == "newer\n"


def test_more_than_a_pipe_takes_at_once(shell: Shell, reader: tuple[str, ...]) -> None:
    text = "x" * 70 * 1024 + "\n"
    assert shell.run(("true",), "", ENTRY_PATH, 10, set(), reader).status == 0
    assert shell.run(reader, text, ENTRY_PATH, 10, set()).out.startswith(text)


def test_who_waits_in_vain_is_sent_away(shell: Shell, reader: tuple[str, ...]) -> None:
    shell.run(("true",), "", ENTRY_PATH, 10, set())
    before = sorted(os.listdir("/proc/self/fd"))
    shell.run(("true",), "", ENTRY_PATH, 10, set(), reader)
    assert wait(lambda: len(running(reader[0])) == 1)
    shell.dismiss()
    assert wait(lambda: running(reader[0]) == [])
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_usual_programs_wait_for_the_next_request() -> None:
    """Two for each shell, whoever had how many of them."""
    shell = Shell(warm=True)
    shell.restock()
    for _ in range(3):
        assert all(shell.waits(argv, ENTRY_PATH) for argv in USUAL)
        for argv in USUAL:
            assert shell.run(argv, "# nothing\n", ENTRY_PATH, 10, set()).status == 0
            assert not shell.waits(argv, ENTRY_PATH)
        shell.restock()
    shell.stop()


def test_a_program_that_waits_hangs(shell: Shell, tmp_path: pathlib.Path) -> None:
    """It counts as one that was killed: it may have done anything."""
    file = tmp_path / "sleeper"
    file.write_text("#!/bin/sh\nread line\necho what for >&2\nsleep 30\n")
    file.chmod(0o755)
    shell.run(("true",), "", ENTRY_PATH, 10, set(), (str(file),))
    began = time.monotonic()
    done = shell.run((str(file),), "this\n", ENTRY_PATH, 0.5, set())
    assert done.status == process.OUT_OF_TIME
    assert time.monotonic() - began < 10
    assert done.err == f"what for\n{file}: killed after 0.5 s (command_timeout)"
    assert wait(lambda: running(str(file)) == [])
    assert shell.run(("echo", "here"), "", ENTRY_PATH, 10, set()).out == "here\n"


def test_a_program_that_was_removed_meanwhile_is_sent_away(shell: Shell, reader: tuple[str, ...]) -> None:
    """And that it was is the next command's failure, not that of who asks whether it waits."""
    shell.run(("true",), "", ENTRY_PATH, 10, set(), reader)
    assert shell.waits(reader, ENTRY_PATH)
    os.unlink(reader[0])
    assert not shell.waits(reader, ENTRY_PATH)
    assert shell.run(reader, "this\n", ENTRY_PATH, 10, set()).status == process.NOT_FOUND
    shell.dismiss()
    assert wait(lambda: running(reader[0]) == [])


def test_a_failure_is_told_whatever_was_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Even a program that waits between requests."""
    usual = tmp_path / "usual"
    usual.write_text("#!/bin/sh\ncat\n")
    usual.chmod(0o755)
    monkeypatch.setattr(shells, "USUAL", ((str(usual),),))
    shell = Shell(warm=True)
    shell.restock()
    assert shell.waits((str(usual),), ENTRY_PATH)
    usual.unlink()
    with pytest.raises(StepFailed):
        Runner(Settings(), {}, shell).do((Step(argv=("false",)),))
    shell.stop()


def test_after_a_failure_nothing_waits(shell: Shell) -> None:
    """A program in a pod's namespace would keep that."""
    runner = Runner(Settings(), {}, shell)
    pod = ("ip", "-n", "pod", "-batch", "-")
    steps = [Step(argv=("false",)), *(Step(argv=("ip", "link", "del", name), netns=Netns("/run/netns/pod")) for name in "ab")]
    with pytest.raises(StepFailed):
        runner.do(tuple(steps))
    runner.ask(("true",), None)
    assert not shell.waits(pod, ENTRY_PATH)


def test_a_program_that_finds_no_descriptor_does_not_wait(shell: Shell) -> None:
    """Those of one digit may be locks."""
    before = sorted(os.listdir("/proc/self/fd"))
    shell._held = set(range(4, 9))
    assert shell._ahead(("cat",), ENTRY_PATH) == ""
    assert not shell.waits(("cat",), ENTRY_PATH)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_child_that_ends_at_once_is_heard_of() -> None:
    """Even if it ends before we are through with starting it."""
    out = os.open(os.devnull, os.O_WRONLY)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(40):
            ended = threading.Event()
            process.Child(("false",), {"PATH": ENTRY_PATH}, out, lambda _, ended=ended: ended.set())  # type: ignore[misc]
            assert ended.wait(5)
    finally:
        sys.setswitchinterval(interval)
        os.close(out)
