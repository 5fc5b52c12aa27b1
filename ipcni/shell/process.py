"""Starting programs: the only module that does, and it does so through `sh`."""

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Mapping

import sh

from ipcni.model import Done

STANDARD_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
OUT_OF_TIME = 124  # the status of timeout(1)
_GRACE = 5  # seconds
_TOLD_TO_STOP = (signal.SIGTERM, signal.SIGINT)
_ANY_STATUS = tuple(range(-64, 256))


def search_path(env: Mapping[str, str]) -> str:
    """The caller's PATH and behind it the standard folders: runtimes often hand over a poor one."""
    given = [folder for folder in env.get("PATH", "").split(":") if folder.startswith("/")]
    return ":".join(dict.fromkeys((*given, *STANDARD_PATH)))


def process(argv: tuple[str, ...], stdin: str | bytes, env: Mapping[str, str], timeout: float, keep: set[int]) -> Done:
    """Runs one program to its end, `timeout` seconds at most, with no other descriptors than `keep`."""
    started = time.monotonic()
    path = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=env.get("PATH", ""))
    if path is None:
        return Done(127, "", f"{argv[0]}: not found in {env.get('PATH')}", 0)
    late = threading.Event()
    # A signal between fork and the moment that there is something to wait for would leave a program behind that nobody stops.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD_TO_STOP)

    def unmask() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        command = sh.Command(path)
        running = command(
            *argv[1:],
            _in=stdin,
            _env=dict(env),
            _tty_out=False,
            _ok_code=_ANY_STATUS,
            _bg=True,
            _bg_exc=False,
            _new_group=True,
            _pass_fds=keep or {2},
            _preexec_fn=unmask,
        )
    except (sh.CommandNotFound, sh.ForkException, OSError) as error:
        unmask()
        return Done(126, "", str(error).strip().splitlines()[-1], _ms(started))

    def stop() -> None:
        late.set()
        with contextlib.suppress(OSError):
            running.kill_group()

    alarm = threading.Timer(timeout, stop)
    alarm.daemon = True
    alarm.start()
    try:
        unmask()
        running.wait()
    except BaseException:
        # We are to stop. A plugin of ours undoes what it did when it is asked to; the time for that is bounded.
        alarm.cancel()
        alarm = threading.Timer(_GRACE, stop)
        alarm.daemon = True
        alarm.start()
        with contextlib.suppress(OSError):
            running.signal_group(signal.SIGTERM)
        with contextlib.suppress(Exception):
            running.wait()
        raise
    finally:
        alarm.cancel()
    out, err = (_text(stream) for stream in (running.stdout, running.stderr))
    if late.is_set():
        return Done(OUT_OF_TIME, out, err + f"{argv[0]}: killed after {timeout:g} s (command_timeout)", _ms(started))
    return Done(running.exit_code, out, err, _ms(started))


def _text(stream: bytes | str | None) -> str:
    return stream.decode("utf-8", "replace") if isinstance(stream, bytes) else stream or ""


def _ms(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 2)
