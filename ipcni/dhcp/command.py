"""`dhcp daemon`: its options, its socket, its life (IPAM sheet 4.3)."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ipcni import settings
from ipcni.dhcp import rpc
from ipcni.dhcp.client import Options
from ipcni.dhcp.daemon import Daemon
from ipcni.errors import CniError, Interrupted
from ipcni.protocol.quoting import quote
from ipcni.settings import Settings
from ipcni.shell.locks import locked

_PASSED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_HANDOVER = 10  # seconds for the daemon before to end
_DEAF = 1.0  # seconds: a signal that comes just before the waiting begins, or to another thread, does not end it
_UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_HELP, _WRONG, _FAILED = 0, 2, 1
Say = Callable[[str], None]


class Flags(msgspec.Struct, frozen=True):
    """The daemon's options; the names are Go's."""

    pidfile: str = ""
    hostprefix: str = ""
    socketpath: str = rpc.DEFAULT_SOCKET
    broadcast: bool = False
    timeout: float = 10
    resendmax: float = 62
    resendtimeout: float = 208


_HELP_TEXTS = {
    "pidfile": "path to write the daemon's PID to",
    "hostprefix": "prefix of the socket's path and of every network namespace's",
    "socketpath": "path of the socket",
    "broadcast": "have servers broadcast their answers",
    "timeout": "how long an answer may take (10s)",
    "resendmax": "the longest pause between attempts (1m2s)",
    "resendtimeout": "how long attempts go on (3m28s)",
}


class UsageError(Exception):
    """What is wrong with the command line."""


def parse(argv: Sequence[str]) -> Flags:
    """Options as Go's flag package reads them: `-name value`, `-name=value`, one dash or two. Raises UsageError."""
    values: dict[str, object] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.lstrip("-").partition("=") if re.match("--?[^-=]", word) else ("", "", "")
        if not name:
            break  # and what comes behind is not looked at
        if name in ("h", "help"):
            raise UsageError("")
        if name not in Flags.__struct_fields__:
            raise UsageError(f"flag provided but not defined: -{name}")
        if name == "broadcast":
            values[name] = _boolean(value if equals else "true")
            continue
        if not equals:
            if not words:
                raise UsageError(f"flag needs an argument: -{name}")
            value = words.pop(0)
        values[name] = value if name in ("pidfile", "hostprefix", "socketpath") else _duration(name, value)
    return msgspec.convert(values, Flags)


def _boolean(text: str) -> bool:
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise UsageError(f"invalid boolean value {quote(text)} for -broadcast: parse error")


def _duration(name: str, text: str) -> float:
    """Seconds of `1m2s`."""
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"invalid value {quote(text)} for flag -{name}: parse error")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def usage() -> str:
    lines = [f"  -{name}\n    \t{_HELP_TEXTS[name]}" for name in sorted(Flags.__struct_fields__)]
    return "\n".join(["Usage of dhcp daemon:", *lines])


def main(argv: Sequence[str], env: Mapping[str, str], say: Say) -> int:
    """Serves until a signal comes. Returns the exit status; `say` takes what a person should know."""
    try:
        flags = parse(argv)
    except UsageError as error:
        say(f"{error}\n{usage()}".lstrip("\n"))
        return _WRONG if str(error) else _HELP
    try:
        own = settings.load(env)
        with locked(f"{own.run_dir}/dhcp.lock", _HANDOVER, keep=True, hint=": is there another daemon?"):
            return _run(flags, own, env, say)
    except CniError as error:
        say(str(error))
        return _FAILED


def _run(flags: Flags, own: Settings, env: Mapping[str, str], say: Say) -> int:
    options = Options(flags.timeout, flags.resendmax, flags.resendtimeout, flags.broadcast)
    daemon = Daemon(own, env, options, flags.hostprefix, say)
    if tool := daemon.missing():
        say(f"this node has no {tool}: ADD will not work")
    made: list[str] = []
    try:
        if flags.pidfile:
            _write_pid(flags.pidfile)
            made.append(flags.pidfile)
        path = flags.hostprefix + flags.socketpath
        listener = _passed(env)
        if listener is None:
            listener = _listen(path)
            made.append(path)
        daemon.start()
        listener.settimeout(_DEAF)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=_serve, args=(connection, daemon, say), daemon=True).start()
    except Interrupted:
        return 0
    except CniError as error:
        say(error.msg)
        return _FAILED
    finally:
        for each in made:
            with contextlib.suppress(OSError):
                os.unlink(each)
        daemon.stop()


def _serve(connection: socket.socket, daemon: Daemon, say: Say) -> None:
    with contextlib.closing(connection):
        try:
            rpc.serve(connection, daemon.perform)
        except Exception as error:  # noqa: BLE001  # one bad call must not end in a traceback, nor without a word
            say(f"internal error: {type(error).__name__}: {error}")


def _write_pid(path: str) -> None:
    problem = "path not absolute" if not os.path.isabs(path) else ""
    try:
        if not problem:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
            os.chmod(path, 0o644)
    except OSError as error:
        problem = f"open {path}: {(error.strerror or '').lower()}"
    if problem:
        raise CniError(f"Error writing pidfile {quote(path)}: {problem}")


def _passed(env: Mapping[str, str]) -> socket.socket | None:
    """The socket that systemd listens on for us, if it does (sd_listen_fds(3)). Raises CniError for more than one."""
    if env.get("LISTEN_PID") != str(os.getpid()) or env.get("LISTEN_FDS", "0") == "0":
        return None
    if env["LISTEN_FDS"] != "1":
        raise CniError(f"Error getting listener: Too many ({env['LISTEN_FDS']}) FDs passed through socket activation")
    try:
        found = socket.socket(fileno=_PASSED)
        os.set_inheritable(_PASSED, False)
    except OSError as error:
        raise CniError(f"Error getting listener: descriptor {_PASSED}: {error.strerror}") from error
    return found


def _listen(path: str) -> socket.socket:
    """A socket of our own; one that nobody listens on any more is replaced. Raises CniError."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        if _abandoned(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise CniError(f"Error getting listener: listen unix {path}: bind: {reason}") from error
    return listener


def _abandoned(path: str) -> bool:
    """Whether a socket is what a killed daemon left."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
