"""Starting programs: the only module that does, and it does so through `sh`, which takes 45 ms to import: not before it is needed."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from ipcni.model import Done
from ipcni.shell.signals import disturbed, heed, undisturbed

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import sh

STANDARD_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
OUT_OF_TIME = 124  # the status of timeout(1)
NOT_FOUND = 127  # sh(1)
GRACE = 5  # seconds
_LAST_WORDS = 8  # lines
ANY_STATUS = tuple(range(-64, 256))


def load() -> ModuleType:
    """`sh`, which is imported the first time; not by halves, for undoing needs it, too."""
    with undisturbed(), _without("ssl"):
        import sh
    return sh


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """Has a module count as not installed where it isn't imported yet: `sh` imports asyncio, which takes TLS along if there is any, for 5 ms."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # importlib's own word for that
    try:
        yield
    finally:
        del sys.modules[name]


def search_path(env: Mapping[str, str]) -> str:
    """The caller's PATH and behind it the standard folders: runtimes often hand over a poor one."""
    given = [folder for folder in env.get("PATH", "").split(":") if folder.startswith("/")]
    return ":".join(dict.fromkeys((*given, *STANDARD_PATH)))


def process(argv: tuple[str, ...], stdin: str | bytes, env: Mapping[str, str], timeout: float, keep: set[int]) -> Done:
    """Runs one program to its end, `timeout` seconds at most, with no other descriptors than `keep`."""
    sh = load()
    started = time.monotonic()
    path = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=env.get("PATH", ""))
    if path is None:
        return Done(NOT_FOUND, "", f"{argv[0]}: not found in {env.get('PATH')}", 0)
    late = threading.Event()

    def stop() -> None:
        late.set()
        with contextlib.suppress(OSError):
            running.kill_group()

    def alarm(seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        return timer

    with undisturbed() as before:  # or there would be a program, for a moment, that nobody waits for or stops
        try:
            command = sh.Command(path)
            running = command(
                *argv[1:],
                _in=stdin,
                _env=dict(env),
                _tty_out=False,
                _ok_code=ANY_STATUS,
                _bg=True,
                _bg_exc=False,
                _new_group=True,
                _pass_fds=keep or {2},
                _preexec_fn=heed,
            )
        except (sh.CommandNotFound, sh.ForkException, OSError) as error:
            return Done(126, "", str(error).strip().splitlines()[-1], ms_since(started))
        timer = alarm(timeout)
        try:
            with disturbed(before):
                running.wait()
        except BaseException:
            # We are to stop. A plugin of ours undoes what it did when it is asked to; the time for that is bounded.
            timer.cancel()
            timer = alarm(GRACE)
            with contextlib.suppress(OSError):
                running.signal_group(signal.SIGTERM)
            with contextlib.suppress(Exception):
                running.wait()
            raise
        finally:
            timer.cancel()
    out, err = (text(stream) for stream in (running.stdout, running.stderr))
    if late.is_set():
        return Done(OUT_OF_TIME, out, err + f"{argv[0]}: killed after {timeout:g} s (command_timeout)", ms_since(started))
    return Done(running.exit_code, out, err, ms_since(started))


class Child:
    """A program that runs beside ours until it ends or is stopped; it is killed should ours be.

    It reads nothing and writes to the descriptor `out`. `ended` is called, in a thread of its own, with its last words on stderr.
    """

    _starter: "ThreadPoolExecutor | None" = None

    def __init__(self, argv: tuple[str, ...], env: Mapping[str, str], out: int, ended: Callable[[str], None]) -> None:
        """Raises OSError when it cannot be started."""
        from concurrent.futures import ThreadPoolExecutor  # not for a plugin, which has no such programs

        library = load()

        self._over, made = threading.Event(), threading.Event()

        def done(command: "sh.RunningCommand", _success: bool, _status: int) -> None:
            self._over.set()
            made.wait()  # one that ends at once does so before the command has got its process
            ended(text(command.process.stderr).strip())  # the command itself would wait for its end

        def start() -> "sh.RunningCommand":
            try:
                with open(os.devnull, "rb") as nothing:
                    running: sh.RunningCommand = library.Command(shutil.which("setpriv", path=env["PATH"]) or "setpriv")(
                        "--pdeathsig",
                        "KILL",
                        *argv,
                        _in=nothing,
                        _out=out,
                        _env=dict(env),
                        _ok_code=ANY_STATUS,
                        _bg=True,
                        _bg_exc=False,
                        _new_group=True,
                        _pass_fds={2},
                        _internal_bufsize=_LAST_WORDS,
                        _done=done,
                    )
                    return running
            except (library.CommandNotFound, library.ForkException) as error:
                raise OSError(str(error).strip().splitlines()[-1]) from error

        # The kernel takes the end of the thread that forked for the parent's: it has to be one that stays.
        Child._starter = Child._starter or ThreadPoolExecutor(1)
        self._running = Child._starter.submit(start).result()
        made.set()

    def signal(self, number: int) -> None:
        if not self._over.is_set():
            with contextlib.suppress(OSError):
                self._running.signal_group(number)

    def stop(self) -> None:
        """Ends it, for good within the time of grace."""
        self.signal(signal.SIGTERM)
        if not self._over.wait(GRACE):
            self.signal(signal.SIGKILL)
            self._over.wait(GRACE)


def text(stream: bytes | str | None) -> str:
    return stream.decode("utf-8", "replace") if isinstance(stream, bytes) else stream or ""


def ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 2)
