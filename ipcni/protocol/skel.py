"""One CNI call: environment and stdin in, exit status and stdout out, no globals (protocol sheet 1 and 2)."""

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from ipcni import __version__, errors, settings
from ipcni.errors import CniError, Interrupted
from ipcni.protocol import config, ready, result
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request

if TYPE_CHECKING:
    from ipcni.shell import journal

CURRENT = "1.1.0"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_VARIABLES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")
_ATTACHED = frozenset({"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"})
_REQUIRED = {
    "ADD": _ATTACHED,
    "CHECK": _ATTACHED,
    "DEL": _ATTACHED - {"CNI_NETNS"},
    "GC": frozenset({"CNI_PATH"}),
    "STATUS": frozenset({"CNI_PATH"}),
}
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_FUNCTIONS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}


class Answer(msgspec.Struct, frozen=True):
    """What the process is to end with."""

    status: int = 0
    stdout: bytes = b""
    stderr: str = ""


def handle(
    plugin: str,
    env: Mapping[str, str],
    read_stdin: Callable[[], bytes],
    host: Callable[[settings.Settings, Mapping[str, str]], Host],
) -> Answer:
    """One call of the executable `plugin`. Raises nothing: every failure is an error object on stdout."""
    try:
        verb = env.get("CNI_COMMAND", "")
        try:
            check_environment(verb, env)
        except CniError:
            if not verb:
                return Answer(stderr=about(plugin))
            raise
        if verb == "VERSION":
            return Answer(stdout=_version(plugin))
        req = request(plugin, verb, env, _read(read_stdin))
        if verb not in _FUNCTIONS:
            raise CniError(f"unknown CNI_COMMAND: {verb}", errors.BAD_ENVIRONMENT)
        return _perform(req, host(settings.load(env), env))
    except CniError as error:
        return _failure(error)
    except Interrupted:
        return interrupted()
    except Exception as error:  # noqa: BLE001  # a traceback on stdout or stderr would reach the runtime as garbage
        return _failure(_defect(error))


def _perform(req: Request, host: Host) -> Answer:
    from ipcni.shell import journal

    record = journal.Record(req, host)
    host.undoes = req.verb == "ADD"
    try:
        try:
            body = _work(req, host)
            record.end(body, None)
            return Answer(stdout=result.text(body) if body else b"")
        except CniError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # see handle
            failure = _defect(error)
            record.trace(error)
        return _failed(host, record, failure)
    except Interrupted:  # whenever it came; there won't be another one
        details = "it has been undone as far as it went" if host.undoes else ""
        return _failed(host, record, CniError(f"{req.verb} was interrupted by a signal", errors.TRY_AGAIN, details))


def _failed(host: Host, record: "journal.Record", failure: CniError) -> Answer:
    """Takes back what was done, writes it down, and says so."""
    if host.undoes:
        with contextlib.suppress(Exception):
            host.undo()
    record.end({}, failure)
    return _failure(failure)


def _work(req: Request, host: Host) -> dict[str, Any]:
    """What the verb is for; the body of ADD's answer."""
    if req.verb in ("ADD", "DEL"):
        _other_netns(req)
    with host.plugin(req.plugin):
        answer = dispatch(req, host)
    return result.encode(answer, req.version) if req.verb == "ADD" else {}


def interrupted() -> Answer:
    """What is said where a signal came before or after all the work."""
    return _failure(CniError("interrupted by a signal", errors.TRY_AGAIN))


def _failure(error: CniError) -> Answer:
    return Answer(1, result.text(error.json()))


def _defect(error: Exception) -> CniError:
    if isinstance(error, OSError) and error.filename and error.strerror:
        # No defect but a node's trouble: a full disk, a folder that is a file, a name that is too long.
        return CniError(f"{os.fsdecode(error.filename)}: {error.strerror.lower()}")
    return CniError(
        f"internal error: {type(error).__name__}: {error}",
        details="this is a defect of ipcni; `ipcni journal` has where it happened",
    )


def about(plugin: str) -> str:
    """What `plugin --version` prints on stderr: two lines, in the form that other programs parse."""
    first = f"CNI {plugin} plugin v{__version__}"
    if plugin == "flannel":
        first = f"CNI Plugin flannel version v{__version__} (linux/{_machine()}) commit ipcni"
    return f"{first}\nCNI protocol versions supported: {', '.join(_versions(plugin))}\n"


def _machine() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def check_environment(verb: str, env: Mapping[str, str]) -> None:
    """Order and wording of protocol sheet 1.4. Raises CniError 4."""
    required = _REQUIRED.get(verb, frozenset())
    missing = [] if verb else ["CNI_COMMAND"]
    for name in _VARIABLES[1:]:
        if name not in required:
            continue
        value = env.get(name, "")
        if not value:
            missing.append(name)
        elif name == "CNI_CONTAINERID":
            check_container_id(value)
        elif name == "CNI_IFNAME":
            check_ifname(value)
    if missing:
        raise CniError(f"required env variables [{','.join(missing)}] missing", errors.BAD_ENVIRONMENT)


def check_container_id(name: str) -> None:
    """The rules for CNI_CONTAINERID (protocol sheet 1.3). Raises CniError 4."""
    if not name:
        raise CniError("missing containerID", errors.BAD_ENVIRONMENT)
    if not _NAME.fullmatch(name):
        raise CniError("invalid characters in containerID", errors.BAD_ENVIRONMENT, name)


def check_ifname(name: str) -> None:
    """The rules for CNI_IFNAME (protocol sheet 1.3). Raises CniError 4."""
    problem, details = "", ""
    if not name:
        problem = "is empty"
    elif len(os.fsencode(name)) > 15:
        problem, details = "is too long", "interface name should be less than 16 characters"
    elif name in (".", ".."):
        problem = "is . or .."
    elif "/" in name or ":" in name or _WHITE_SPACE.search(name):
        problem = "contains / or : or whitespace characters"
    if problem:
        raise CniError(f"interface name {problem}", errors.BAD_ENVIRONMENT, details)


def check_network_name(name: str) -> None:
    """The rules for the network's name (protocol sheet 1.3). Raises CniError 7."""
    if not name:
        raise CniError("missing network name", errors.BAD_CONFIG)
    if not _NAME.fullmatch(name):
        raise CniError("invalid characters found in network name", errors.BAD_CONFIG, name)


def _read(read_stdin: Callable[[], bytes]) -> bytes:
    try:
        return read_stdin()
    except OSError as error:
        raise CniError(f"error reading from stdin: {error.strerror}", errors.IO_FAILURE) from error


def request(plugin: str, verb: str, env: Mapping[str, str], stdin: bytes) -> Request:
    """The typed request. Raises CniError 6 for what is no JSON object, 7 for a bad network name."""
    try:
        conf = config.parse(stdin)
        if conf is None:
            conf = {}
        if not isinstance(conf, dict):
            raise ValueError(f"stdin is no JSON object but a {type(conf).__name__}")
    except ValueError as error:
        raise CniError(f"error unmarshall network config: {error}", errors.DECODING) from error
    name = config.find(conf, "name")
    if name is None:  # and not 0, [] or false, which are of a wrong type
        name = ""
    if not isinstance(name, str):
        raise CniError("error unmarshall network config: `name` is no string", errors.DECODING)
    check_network_name(name)
    version = config.find(conf, "cniVersion")
    if version is not None and not isinstance(version, str):
        if verb in _FUNCTIONS:
            raise CniError("decoding version from network config: `cniVersion` is no string", errors.DECODING)
        version = ""
    return Request(
        plugin=plugin,
        verb=verb,
        container_id=env.get("CNI_CONTAINERID", ""),
        netns_path=env.get("CNI_NETNS", ""),
        ifname=env.get("CNI_IFNAME", ""),
        args=env.get("CNI_ARGS", ""),
        path=env.get("CNI_PATH", ""),
        env=env,
        stdin=stdin,
        conf=conf,
        network=name,
        version=version or "0.1.0",
    )


def load(plugin: str) -> ModuleType:
    """The module of a plugin. Raises CniError where this suite has none of that name."""
    try:
        return importlib.import_module("ipcni.plugins." + plugin.replace("-", "_"))
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("ipcni.plugins"):
            raise  # a module that it needs
        raise CniError(f"ipcni has no plugin {plugin!r}") from error


def _versions(plugin: str) -> tuple[str, ...]:
    versions: tuple[str, ...] = getattr(load(plugin), "VERSIONS", result.VERSIONS)
    return versions


def _version(plugin: str) -> bytes:
    versions = ",".join(f'"{version}"' for version in _versions(plugin))
    return f'{{"cniVersion":"{CURRENT}","supportedVersions":[{versions}]}}\n'.encode()


def dispatch(req: Request, host: Host) -> result.Result:
    """The verb's version gate, then the plugin's own function; an empty result for everything but ADD."""
    module = load(req.plugin)
    versions = _versions(req.plugin)
    if minimum := _SINCE.get(req.verb):
        _allow(req, minimum, versions)
    if req.version not in versions:
        listed = " ".join(f'"{version}"' for version in versions)
        raise CniError(
            "incompatible CNI versions",
            errors.INCOMPATIBLE_VERSION,
            f'config is "{req.version}", plugin supports [{listed}]',
        )
    if req.verb == "STATUS":
        ready.check(host, module)
    function = getattr(module, _FUNCTIONS[req.verb], None)
    answer = function(req, host) if function else None
    return answer if isinstance(answer, result.Result) else result.Result()


def _allow(req: Request, minimum: str, versions: tuple[str, ...]) -> None:
    """CHECK, GC and STATUS: old configs and too new ones are told apart (protocol sheet 2.1)."""
    wanted = number(req.version)
    if wanted < number(minimum):
        raise CniError(f"config version does not allow {req.verb}", errors.INCOMPATIBLE_VERSION)
    if wanted > max(number(version) for version in versions):
        raise CniError(f"plugin version does not allow {req.verb}", errors.INCOMPATIBLE_VERSION)


def number(version: str) -> tuple[int, int, int]:
    """A version for comparison (protocol sheet 1.8). Raises CniError 6 for one that is no version."""
    parts = (version or "0.1.0").split(".")
    if len(parts) > 3:
        raise CniError(f'invalid version "{version}": too many parts', errors.DECODING)
    numbers = [0, 0, 0]
    for index, (name, part) in enumerate(zip(("major", "minor", "micro"), parts, strict=False)):
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", part):
            raise CniError(f'failed to convert {name} version part "{part}": invalid syntax or out of range', errors.DECODING)
        numbers[index] = int(part)
    return numbers[0], numbers[1], numbers[2]


def _other_netns(req: Request) -> None:
    """The pod's namespace must not be the plugin's own (protocol sheet 1.7). Raises CniError 8."""
    override = req.env.get("CNI_NETNS_OVERRIDE", "")
    if override == "1" or override.lower() == "true":
        return
    try:
        there = os.stat(req.netns_path)
    except OSError:
        return
    try:
        mine = os.stat("/proc/thread-self/ns/net")
    except OSError as error:
        raise CniError("get plugin's netns failed", errors.BAD_NETNS, str(error)) from error
    if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
        raise CniError("plugin's netns and netns from CNI_NETNS should not be the same", errors.BAD_NETNS)
