"""Calling another plugin: in-process when it is ours, by execution when it isn't (protocol sheet 6)."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.model import Done
from ipcni.protocol import config, result
from ipcni.protocol.host import Host
from ipcni.protocol.quoting import quote
from ipcni.protocol.request import Request

MARK = b"ipcni plugin entry"  # stands in the head of bin/cni and of every installed launcher
_ELF = b"\x7fELF"
_BUSY_TRIES = 6
_OUT_OF_TIME, _NOT_STARTED = 124, 126  # shell.run's own statuses
_WHY_NOT_STARTED = re.compile(r"\[Errno \d+\] ([^:]+): b?'")


class _Versions(msgspec.Struct, frozen=True, rename="camel"):
    """A plugin's answer to VERSION."""

    cni_version: str = ""
    supported_versions: tuple[str, ...] = ()


class _Error(msgspec.Struct, frozen=True):
    """A plugin's error object."""

    code: int = 0
    msg: str = ""
    details: str = ""


def find(plugin: str, path: str) -> str:
    """The executable of that name, from a colon-separated list of folders. Raises CniError 999 in the reference's words."""
    folders = [folder for folder in path.split(":") if folder]
    if not plugin:
        raise CniError("no plugin name provided")
    if "/" in plugin:
        raise CniError(f"invalid plugin name: {plugin}")
    if not folders:
        raise CniError("no paths provided")
    for folder in folders:
        if os.path.isfile(candidate := os.path.join(folder, plugin)):
            return candidate
    raise CniError(
        f'failed to find plugin "{plugin}" in path [{" ".join(folders)}]',
        details=f"put an executable {plugin} into one of these folders (`ipcni install` does for ours) or correct the `type` key",
    )


def is_ours(path: str) -> bool:
    """Whether the executable is a launcher of this suite."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
            if head.startswith(_ELF):  # the program that asks `ipcni serve` has it at its end
                file.seek(-len(MARK), os.SEEK_END)
                head = file.read()
            return MARK in head
    except OSError:
        return False


def call(req: Request, host: Host, plugin: str, stdin: bytes | None = None, verb: str = "") -> result.Result:
    """Has another plugin do `verb` (default: the caller's) with the caller's stdin, or another one.

    Returns ADD's result, an empty one for the other verbs. Raises the delegate's own CniError, code and text unchanged.
    """
    from ipcni.protocol import skel  # skel reaches plugins, and plugins delegates

    verb = verb or req.verb
    path = find(plugin, req.path)
    stdin = req.stdin if stdin is None else stdin
    env = {**req.env, "CNI_COMMAND": verb}
    if is_ours(path):
        child = skel.request(plugin, verb, env, stdin)
        with host.plugin(plugin):
            return skel.dispatch(child, host)
    if verb == "ADD":
        return result.decode(*answer(_add(host, path, env, stdin), req.version))
    _execute(host, path, env, stdin)
    return result.Result()


def _add(host: Host, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
    """ADD, which is taken back by DEL should the caller fail later.

    A delegate that failed has tidied up itself; one that was killed, by a signal, by us or because we are being, has not.
    """
    done = None
    try:
        done = run(host, path, env, stdin)
    finally:
        if done is None or done.status <= 0 or done.status == _OUT_OF_TIME:
            host.on_undo(lambda: _execute(host, path, {**env, "CNI_COMMAND": "DEL"}, stdin))
    return succeeded(done, path)


def _execute(host: Host, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
    return succeeded(run(host, path, env, stdin), path)


def run(host: Host, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
    """Executes a plugin, waiting for one that is just being replaced; its stderr goes to ours."""
    for attempt in range(_BUSY_TRIES):
        if attempt:
            time.sleep(1)  # the executable is just being replaced
        done = host.execute(path, env, stdin)
        if _not_started(done, path) != "text file busy":
            break
    if not _not_started(done, path):
        with contextlib.suppress(OSError):
            os.write(2, done.err.encode())  # log text of the delegate's, also when it failed (protocol sheet 11, row 9)
    return done


def succeeded(done: Done, path: str) -> Done:
    """Raises the plugin's own error, or one that says how it ended without any."""
    if done.status == 0:
        return done
    if why := _not_started(done, path):
        raise CniError(f"netplugin failed with no error message: fork/exec {path}: {why}", 0)
    reason = f"signal: {signal.strsignal(-done.status)}".lower() if done.status < 0 else f"exit status {done.status}"
    if not done.out:
        said = f": {quote(done.err)}" if done.err else " with no error message"
        raise CniError(f"netplugin failed{said}: {reason}", 0)
    try:
        error = config.decode(config.parse(done.out.encode()), _Error, prefix="")
    except (ValueError, CniError) as problem:
        text = f"netplugin failed but error parsing its diagnostic message {quote(done.out)}: {problem}"
        raise CniError(text, 0) from problem
    raise CniError(error.msg, error.code, error.details)


def _not_started(done: Done, path: str) -> str:
    """Why it could not be executed, in the kernel's words; the empty text for a plugin that ran."""
    if done.status != _NOT_STARTED or done.out:
        return ""
    if done.err == path:  # sh's way of saying so
        return "permission denied"
    match = _WHY_NOT_STARTED.search(done.err)
    return match[1].lower() if match else ""


def answer(done: Done, version: str) -> tuple[dict[str, Any], str]:
    """ADD's result object and the version it is written in: what its label says, `version` where it has none.

    Raises CniError for something else than an object or null, which is an empty one.
    """
    if not done.out.strip():
        raise CniError("failed to unmarshal raw result: unexpected end of JSON input")
    try:
        body = config.parse(done.out.encode())
    except ValueError as error:
        raise CniError(f"failed to unmarshal raw result: {error}") from error
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise CniError("failed to unmarshal raw result: it is not an object")
    label = config.find(body, "cniVersion")
    if not isinstance(label, str) or not label:
        label = version
        body = {key: value for key, value in body.items() if key.lower() != "cniversion"}
    return body, label


def versions(done: Done) -> tuple[str, ...]:
    """What VERSION answered: the versions a plugin supports. Raises CniError `decoding version info: …` (protocol sheet 2.7)."""
    try:
        said = config.decode(config.parse(done.out.encode()), _Versions, prefix="")
    except (ValueError, CniError) as error:
        raise CniError(f"decoding version info: {error}") from error
    if not said.cni_version:
        raise CniError("decoding version info: missing field cniVersion")
    if not said.supported_versions:
        if said.cni_version == "0.2.0":
            return ("0.1.0", "0.2.0")
        raise CniError("decoding version info: missing field supportedVersions")
    return said.supported_versions
