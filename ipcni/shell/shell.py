"""The shell that runs our commands, and the programs that it has waiting."""

import contextlib
import itertools
import os
import select
import shlex
import shutil
import signal
import time
from typing import Any

from ipcni.model import Done, line
from ipcni.shell.batch import USUAL
from ipcni.shell.process import ANY_STATUS, GRACE, NOT_FOUND, OUT_OF_TIME, load, ms_since, search_path, text
from ipcni.shell.signals import end_group, heed, undisturbed
from ipcni.shell.waiting import Waiting, Words

_TELL = "echo $? >&3\n"  # descriptor 3 is ours
_USUAL_PATH = search_path({})


class Shell:
    """A /bin/sh that runs one command after the other: a program then costs its own start, and no fork of Python.

    It comes with the first command, and again after one that was killed. Its process group is its own. A `warm` one lives on between
    requests, and therefore does not hold their locks.
    """

    def __init__(self, *, warm: bool = False) -> None:
        self._warm = warm
        self._running: Any = None
        self._script = self._status = -1
        self._out, self._err = os.memfd_create("stdout"), os.memfd_create("stderr")
        self._path = ""
        self._held: set[int] = set()
        self._beside: Shell | None = None
        self._hurried = False
        self._waiting: list[Waiting] = []
        self._number = itertools.count()

    @property
    def beside(self) -> "Shell":
        """Another one of its kind, for what is to run at the same time."""
        self._beside = self._beside or Shell(warm=self._warm)
        return self._beside

    def run(self, argv: Words, stdin: str, path: str, timeout: float, keep: set[int], then: Words = ()) -> Done:
        """Runs one program of the folders in `path` to its end, `timeout` seconds at most.

        `keep` are descriptors, of locks, that shall stay open as long as a command runs, whatever becomes of the caller. `then` is a program
        that will be given something to read next: it is started meanwhile.
        """
        sh = load()
        started = time.monotonic()
        try:
            status, out, err = self._run(argv, stdin, path, timeout, keep, then)
        except (sh.CommandNotFound, sh.ForkException, OSError) as error:
            self._kill(signal.SIGKILL)
            return Done(126, "", str(error).strip().splitlines()[-1], ms_since(started))
        except BaseException:
            # We are to stop, and so is the command; what it did by then is undone next.
            self._kill(signal.SIGTERM)
            raise
        if status == NOT_FOUND and "/" not in argv[0] and shutil.which(argv[0], path=path) is None:
            return Done(status, "", f"{argv[0]}: not found in {path}", ms_since(started))
        if status == OUT_OF_TIME:
            return Done(OUT_OF_TIME, out, err + f"{argv[0]}: killed after {timeout:g} s (command_timeout)", ms_since(started))
        return Done(status, out, err, ms_since(started))

    def _run(self, argv: Words, stdin: str, path: str, timeout: float, keep: set[int], then: Words) -> tuple[int, str, str]:
        self._be_there(path, keep)
        data = stdin.encode()
        if data and (waiting := next((each for each in self._waiting if each.fits(argv, path, data)), None)):
            waiting.feed(data)
            status = self._say(f"{self._ahead(then, path)}{waiting.wait}\n{_TELL}", timeout)
            if waiting not in self._waiting:  # it was killed with the shell
                return status, *waiting.said
            out, err = map(self._told, waiting.streams)
            remark = self._told(self._err)  # the shell's, on its end
            began = not waiting.untouched(data)
            self._forget(waiting)
            if began:
                return status, out, err + remark
        status = self._say(f"{self._ahead(then, path)}{_command(argv, stdin)}{_TELL}", timeout)
        return status, self._told(self._out), self._told(self._err)

    def _be_there(self, path: str, keep: set[int]) -> None:
        """Has a shell running that looks for programs in `path`. Raises OSError where there is none to be had."""
        self.calm()
        if self._running is not None and (self._ended() or (not self._warm and not keep <= self._held)):
            self.stop()
        if self._running is None:
            self._start(path, set() if self._warm else keep)
        if path != self._path:
            self._say(f"PATH={shlex.quote(path)}\necho 0 >&3\n", GRACE)
            self._path = path

    # -- programs that wait for what they are to read

    def _ahead(self, argv: Words, path: str) -> str:
        """The lines of shell that start a program which then waits; none where one waits already, or can't."""
        with undisturbed(), contextlib.suppress(OSError):
            if argv and not self.waits(argv, path):
                waiting = Waiting(argv, path, next(self._number))
                try:
                    lines = waiting.start(self._held)
                except OSError:
                    waiting.close()
                    raise
                self._waiting.append(waiting)
                return lines
        return ""

    def waits(self, argv: Words, path: str) -> bool:
        """Whether such a program waits."""
        return any(each.fits(argv, path) for each in self._waiting)

    def dismiss(self) -> None:
        """Has those programs end that wait in vain: all but the usual ones."""
        with undisturbed():
            vain = [each for each in self._waiting if each.argv not in USUAL or not each.fits(each.argv, _USUAL_PATH)]
            if vain and not self._say("echo 0 >&3\n", GRACE):  # the shell has opened all that is theirs
                for each in vain:
                    self._forget(each)

    def restock(self) -> None:
        """Between requests: has the usual programs wait for the next one. Nothing of a request is in them."""
        with contextlib.suppress(OSError):
            self._be_there(self._path or _USUAL_PATH, set())
            self.dismiss()
            os.write(self._script, "".join(self._ahead(argv, _USUAL_PATH) for argv in USUAL).encode())
        if self._beside:
            self._beside.restock()

    def _forget(self, waiting: Waiting) -> None:
        self._waiting.remove(waiting)
        waiting.close()

    def _ended(self) -> bool:
        """Whether the shell is gone; while nothing runs it has nothing to say but that."""
        return bool(select.select([self._status], [], [], 0)[0])

    def stop(self) -> None:
        """Ends the shell, once it is through with what it was told."""
        with undisturbed():
            fds, self._script, self._status = (self._script, self._status), -1, -1
            self._running = None
            for fd in fds:
                if fd >= 0:
                    os.close(fd)
            for each in self._waiting[::-1]:
                self._forget(each)

    def hurry(self) -> None:
        """Has the command that runs end, called from another thread than it runs in."""
        self._hurried = True
        if (running := self._running) is not None:  # its truth is its output's, for which it would wait
            with contextlib.suppress(OSError):
                os.killpg(running.pgid, signal.SIGTERM)

    def hurried(self) -> bool:
        """Whether it was hurried, and nothing has run since."""
        return self._hurried

    def calm(self) -> None:
        """Has what comes next run without hurry."""
        if self._hurried:  # the shell may be about to die
            self._kill(signal.SIGKILL)
            self._hurried = False

    def _start(self, path: str, keep: set[int]) -> None:
        """Raises OSError where the shell cannot be started."""
        for stream in (self._out, self._err):
            self._told(stream)  # what a command said that was killed
        with undisturbed():
            try:
                self._begin(path, keep)
            except BaseException:
                self._kill(signal.SIGKILL)
                raise

    def _begin(self, path: str, keep: set[int]) -> None:
        sh = load()
        with contextlib.ExitStack() as theirs:
            read, self._script = os.pipe()
            script = theirs.enter_context(open(read, "rb", 0))
            self._status, write = os.pipe()
            theirs.callback(os.close, write)
            self._running = sh.Command("/bin/sh")(
                _in=script,
                _out=self._out,
                _err=self._err,
                _cwd="/",
                _env={"PATH": path, "LC_ALL": "C"},
                _ok_code=ANY_STATUS,
                _bg=True,
                _bg_exc=False,
                _new_group=True,
                _pass_fds=keep or {2},
                _preexec_fn=heed,
            )
            self._path, self._held = path, set(keep)
            # Descriptor 3 tells us how commands end; they don't get it themselves.
            if self._say(f"exec 3>/proc/{os.getpid()}/fd/{write}; echo 0 >&3\n", GRACE):
                raise OSError("/bin/sh does not start")

    def _say(self, script: str, timeout: float) -> int:
        """Has lines run that end by telling a status: what it is (that of a signal, 129 to 192, as a negative number)."""
        data = script.encode()
        deadline = time.monotonic() + timeout
        told = b""
        while not told.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable, writable, _ = select.select([self._status], [self._script] if data else [], [], max(left, 0))
            if readable:
                part = os.read(self._status, 16)
                if not part:  # somebody has killed it, and how far its command got is unknown
                    self._kill(signal.SIGKILL)
                    return -signal.SIGKILL
                told += part
            elif writable:
                data = data[os.write(self._script, data[:4096]) :]
            elif left <= 0:
                self._kill(signal.SIGKILL)
                return OUT_OF_TIME
        status = int(told)
        return 128 - status if 128 < status <= 128 + signal.SIGRTMAX else status  # 255 is how ip refuses a word

    def _kill(self, number: int) -> None:
        """Ends the shell and the command it runs, for good within the time of grace."""
        with undisturbed():
            running, (waiting, self._waiting) = self._running, (self._waiting, [])
            self.stop()
            if running is not None:
                end_group(running.pgid, number, GRACE)
            for each in waiting:  # now nobody opens what is theirs any more
                out, err = each.streams
                each.said = self._told(out), self._told(err)
                each.close()

    @staticmethod
    def _told(stream: int) -> str:
        said = os.pread(stream, os.fstat(stream).st_size, 0)
        os.ftruncate(stream, 0)
        os.lseek(stream, 0, os.SEEK_SET)
        return text(said)


def _command(argv: Words, stdin: str) -> str:
    """Lines of shell: a command, and what it is to read."""
    if not stdin:
        return f"{line(argv)} 3>&- </dev/null\n"
    mark = "END"
    while f"\n{mark}\n" in f"\n{stdin}":
        mark += "_"
    return f"{line(argv)} 3>&- <<'{mark}'\n{stdin}{mark}\n"
