"""Calling another plugin: in-process when it is ours, by execution when it isn't (protocol sheet 6)."""

import json
import os
import time

from ipcni.errors import CniError
from ipcni.model import Done
from ipcni.protocol import config, result
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request

MARK = b"ipcni plugin entry"  # stands in the head of bin/cni and of every installed launcher
_BUSY_TRIES = 5


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
            return MARK in file.read(512)
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
        answer = _execute(host, path, env, stdin)
        host.on_undo(lambda: _execute(host, path, {**env, "CNI_COMMAND": "DEL"}, stdin))
        return _result(answer, req.version)
    _execute(host, path, env, stdin)
    return result.Result()


def _execute(host: Host, path: str, env: dict[str, str], stdin: bytes) -> Done:
    for attempt in range(_BUSY_TRIES + 1):
        done = host.execute(path, env, stdin)
        if not (done.status == 126 and "Text file busy" in done.err and attempt < _BUSY_TRIES):
            break
        time.sleep(1)  # the executable is just being replaced
    if done.status:
        raise _error(done)
    return done


def _error(done: Done) -> CniError:
    reason = f"signal: {-done.status}" if done.status < 0 else f"exit status {done.status}"
    if done.status == 126:
        reason = done.err
    if not done.out.strip():
        if done.status == 126 or not done.err:
            return CniError(f"netplugin failed with no error message: {reason}", 0)
        return CniError(f"netplugin failed: {json.dumps(done.err, ensure_ascii=False)}: {reason}", 0)
    try:
        body = config.parse(done.out.encode())
        if not isinstance(body, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        quoted = json.dumps(done.out, ensure_ascii=False)
        return CniError(f"netplugin failed but error parsing its diagnostic message {quoted}: {error}", 0)
    code, msg, details = (config.find(body, key) for key in ("code", "msg", "details"))
    return CniError(str(msg or ""), code if isinstance(code, int) else 0, str(details or ""))


def _result(done: Done, version: str) -> result.Result:
    if not done.out.strip():
        raise CniError("failed to unmarshal raw result: unexpected end of JSON input")
    try:
        body = config.parse(done.out.encode())
    except ValueError as error:
        raise CniError(f"failed to unmarshal raw result: {error}") from error
    if body is None:
        return result.Result()
    if not isinstance(body, dict):
        raise CniError("failed to unmarshal raw result: it is not an object")
    return result.decode(body, config.find(body, "cniVersion") or version)
