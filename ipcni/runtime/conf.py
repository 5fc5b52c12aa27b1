"""Network configurations on disk (protocol sheet 4.2 to 4.4)."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import config, skel
from ipcni.protocol.quoting import quote
from ipcni.protocol.result import Dns

CONF_DIR = "/etc/cni/net.d"
_LISTS = (".conflist",)
_SINGLES = (".conf", ".json")
ENDINGS = (*_LISTS, *_SINGLES)
_LIST = "error parsing configuration list: "
_SINGLE = "error parsing configuration: "
_GO_TYPES = {
    bool: "bool",
    int: "float64",
    float: "float64",
    str: "string",
    dict: "map[string]interface {}",
    list: "[]interface {}",
}

Json = dict[str, Any]


class NetworkList(msgspec.Struct, frozen=True):
    """A network: its name, the version selected for it, and its plugins' objects in order.

    Each plugin has its `type`, a text, under that very key. `raw` are the bytes of the list.
    """

    name: str
    version: str
    plugins: tuple[Json, ...]
    raw: bytes
    disable_check: bool = False
    disable_gc: bool = False


class _Ipam(msgspec.Struct, frozen=True):
    type: str = ""


class _Plugin(msgspec.Struct, frozen=True, rename="camel"):
    """The keys of a plugin's object whose types the loader checks."""

    name: str = ""
    type: str = ""
    cni_version: str = ""
    capabilities: dict[str, bool] = {}
    ipam: _Ipam = _Ipam()
    dns: Dns = Dns()
    prev_result: Json = {}
    valid_attachments: tuple[Json, ...] = msgspec.field(default=(), name="cni.dev/valid-attachments")


def from_file(path: str) -> NetworkList:
    """A list or a single plugin's configuration; a `.conflist` is a list, and so is anything else with `plugins` and no `type`.

    Raises CniError in libcni's words, with the file, and where it is no JSON line and column, in the details.
    """
    data = _read(path)
    with _in(path):
        if path.endswith(_LISTS):
            return _list(data, path)
        body = _object(data, path, _SINGLE)
        if "plugins" in body and config.find(body, "type") is None:
            return _list(data, path)
        return _as_list(_checked(body))


def by_name(folder: str, name: str) -> NetworkList:
    """The network of that name in a folder: lists first, then single configurations, each in order of their file names.

    A broken file that sorts before the match ends the search, as in libcni. Raises CniError as `from_file` does.
    """
    paths = _files(folder, _LISTS) + _files(folder, _SINGLES)
    if not paths:
        raise CniError(f"no net configurations found in {folder}")
    for path in paths:
        found = _by_ending(path)
        if found.name == name:
            return found
    raise CniError(f'no net configuration with name "{name}" in {folder}')


def first(folder: str) -> tuple[str, NetworkList]:
    """What a kubelet's runtime picks: of all `.conf`, `.conflist` and `.json` files together the first that is valid; with its path.

    Raises CniError that tells what is wrong with each where none is.
    """
    problems = []
    for path in _files(folder, ENDINGS):
        try:
            return path, _by_ending(path)
        except CniError as error:
            problems.append(str(error))
    details = "; ".join(problems) or "a network's configuration is a .conflist file there"
    raise CniError(f"no net configurations found in {folder}", details=details)


def _by_ending(path: str) -> NetworkList:
    """The configuration in a file of a folder, where its name tells what it has to be."""
    data = _read(path)
    with _in(path):
        return _list(data, path) if path.endswith(_LISTS) else _as_list(_checked(_object(data, path, _SINGLE)))


def _list(data: bytes, path: str) -> NetworkList:
    """A configuration list, with the plugins of the folder named like the network beside it."""
    body = _object(data, path, _LIST)
    if "name" not in body:
        raise CniError(f"{_LIST}no name")
    name = body["name"]
    if not isinstance(name, str):
        raise CniError(f"{_LIST}invalid name type {_go(name)}")
    version = _version(body)
    disable_check, disable_gc, only_inlined = (
        _boolean(body, key) for key in ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")
    )
    if only_inlined and "plugins" not in body:
        raise CniError(f"{_LIST}`loadOnlyInlinedPlugins` is true, and no 'plugins' key")
    plugins = _inline(body)
    if not only_inlined:
        plugins += [_from_folder(each) for each in _files(os.path.join(os.path.dirname(path), name), (".conf",))]
    if not plugins:
        raise CniError("no plugin configs found")
    return NetworkList(name, version, tuple(plugins), data, disable_check, disable_gc)


def _as_list(plugin: Json) -> NetworkList:
    """A single plugin as the list that libcni makes of it."""
    name, version = config.find(plugin, "name") or "", config.find(plugin, "cniVersion") or ""
    raw = config.dump(config.in_order({"name": name, "cniVersion": version, "plugins": [plugin]}))
    return NetworkList(name, version, (plugin,), raw)


def _inline(body: Json) -> list[Json]:
    if "plugins" not in body:
        return []
    listed = body["plugins"]
    if not isinstance(listed, list):
        raise CniError(f"{_LIST}invalid 'plugins' type {_go(listed)}")
    if not listed:
        raise CniError(f"{_LIST}no plugins in list")
    plugins = []
    for index, plugin in enumerate(listed):
        try:
            plugins.append(_checked(plugin))
        except CniError as error:
            raise CniError(f"failed to parse plugin config {index}: {error.msg}") from error
    return plugins


def _from_folder(path: str) -> Json:
    data = _read(path)
    with _in(path):
        return _checked(_object(data, path, _SINGLE))


def _checked(plugin: object) -> Json:
    """The plugin's object, its `type` under that spelling whichever it had."""
    if not isinstance(plugin, dict):
        raise CniError(f"{_SINGLE}a plugin is an object, not {_go(plugin)}")
    typed = config.decode(plugin, _Plugin, prefix=_SINGLE.removesuffix(": "))
    if not typed.type:
        raise CniError(f"{_SINGLE}missing 'type'")
    return {**plugin, "type": typed.type}


def _version(body: Json) -> str:
    """The greatest version the network is valid for that we know too (protocol sheet 4.4)."""
    version = body.get("cniVersion", "")
    if not isinstance(version, str):
        raise CniError(f"{_LIST}invalid cniVersion type {_go(version)}")
    if "cniVersions" not in body:
        return version
    listed = body["cniVersions"]
    if not isinstance(listed, list):
        raise CniError(f"{_LIST}invalid type for cniVersions: []interface {{}}")
    known = {}
    for index, each in enumerate(listed):
        if not isinstance(each, str):
            raise CniError(f"{_LIST}invalid type for cniVersions index {index}: {_go(each)}")
        try:
            known[skel.number(each)] = each
        except CniError as error:
            raise CniError(f"{_LIST}invalid cniVersions entry {each} at index {index}: {error.msg}") from error
    if version:
        try:
            known[skel.number(version)] = version
        except CniError as error:
            raise CniError(f"{_LIST}invalid cniVersion {version}: {error.msg}") from error
    usable = [number for number in known if number <= skel.number(skel.CURRENT)]
    return known[max(usable)] if usable else version


def _boolean(body: Json, key: str) -> bool:
    value = body.get(key, False)
    if isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise CniError(f'{_LIST}invalid value "{value.lower()}" for {key}')
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise CniError(f"{_LIST}invalid type {_go(value)} for {key}")
    return value


def _go(value: object) -> str:
    """What Go calls the type of a JSON value."""
    return next((name for kind, name in _GO_TYPES.items() if isinstance(value, kind)), "<nil>")


def _object(data: bytes, path: str, prefix: str) -> Json:
    try:
        body = config.parse(data)
    except json.JSONDecodeError as error:
        raise CniError(f"{prefix}{error.msg}", details=f"in {path}:{error.lineno}:{error.colno}") from error
    except ValueError as error:
        raise CniError(f"{prefix}{error}") from error
    if not isinstance(body, dict):
        raise CniError(f"{prefix}it must be an object, not {_go(body)}")
    return body


@contextlib.contextmanager
def _in(path: str) -> Iterator[None]:
    """A failure inside is this file's, unless it says where it is: libcni's messages name no file."""
    try:
        yield
    except CniError as error:
        raise CniError(error.msg, error.code, error.details or f"in {path}") from error


def _files(folder: str, endings: tuple[str, ...]) -> list[str]:
    """The files whose name from its last dot on is one of the endings, in byte order."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:  # ValueError: a network's name with a NUL in it
        raise CniError(f"error reading {quote(folder)}: {getattr(error, 'strerror', error)}") from error
    paths = (os.path.join(folder, name) for name in names if "." in name and name[name.rindex(".") :] in endings)
    return sorted((path for path in paths if not os.path.isdir(path)), key=os.fsencode)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CniError(f"error reading {path}: {error.strerror}") from error
