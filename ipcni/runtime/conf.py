"""Network configurations on disk (protocol sheet 4.2 to 4.4)."""

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import config, skel

CONF_DIR = "/etc/cni/net.d"
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


class NetworkList(msgspec.Struct, frozen=True):
    """A network: its name, the version selected for it, and its plugins' objects in order. `raw` are the bytes it was read from."""

    name: str
    version: str
    plugins: tuple[dict[str, Any], ...]
    raw: bytes
    disable_check: bool = False
    disable_gc: bool = False


class _Plugin(msgspec.Struct, frozen=True, rename="camel"):
    """The keys of a plugin object whose types the loader checks."""

    name: str = ""
    type: str = ""
    cni_version: str = ""
    capabilities: dict[str, bool] = {}
    ipam: dict[str, Any] = {}
    dns: dict[str, Any] = {}
    prev_result: dict[str, Any] = {}


def from_file(path: str) -> NetworkList:
    """A list (`.conflist`) or a single plugin's configuration (any other name, and any object without `plugins`).

    Raises CniError naming the file and what is wrong, with line and column where it is no JSON.
    """
    data = _read(path)
    try:
        if path.endswith(".conflist") or b'"plugins"' in data:
            return parse_list(data, os.path.dirname(path))
        return parse_single(data)
    except CniError as error:
        raise CniError(f"{path}: {error.msg}", error.code, error.details) from error


def by_name(folder: str, name: str) -> NetworkList:
    """The network of that name in a folder: lists first, then single configurations, each in order of their file names.

    A broken file that sorts before the match ends the search, as in libcni. Raises CniError.
    """
    lists, singles = _files(folder, (".conflist",)), _files(folder, (".conf", ".json"))
    if not lists and not singles:
        raise CniError(f"no net configurations found in {folder}")
    for path in lists:
        found = parse_list(_read(path), folder)
        if found.name == name:
            return found
    for path in singles:
        found = parse_single(_read(path))
        if found.name == name:
            return found
    raise CniError(f'no net configuration with name "{name}" in {folder}')


def first(folder: str) -> tuple[str, NetworkList]:
    """What a kubelet's runtime picks: of all `.conf`, `.conflist` and `.json` files together the first that is valid; with its path.

    Raises CniError that tells what is wrong with each where none is.
    """
    problems = []
    for path in _files(folder, (".conf", ".conflist", ".json")):
        try:
            return path, from_file(path)
        except CniError as error:
            problems.append(error.msg)
    details = "; ".join(problems) or "a network's configuration is a .conflist file there"
    raise CniError(f"no net configurations found in {folder}", details=details)


def parse_list(data: bytes, folder: str) -> NetworkList:
    """A configuration list; plugin files are looked for in `folder`/<network name>. Raises CniError in libcni's words."""
    body = _object(data, _LIST)
    if "name" not in body:
        raise CniError(f"{_LIST}no name")
    name = body["name"]
    if not isinstance(name, str):
        raise CniError(f"{_LIST}invalid name type {_go(name)}")
    version = _version(body)
    inlined_only = _boolean(body, "loadOnlyInlinedPlugins")
    flags = {key: _boolean(body, key) for key in ("disableCheck", "disableGC")}
    if inlined_only and "plugins" not in body:
        raise CniError(f"{_LIST}`loadOnlyInlinedPlugins` is true, and no 'plugins' key")
    plugins = _inline(body)
    if not inlined_only:
        plugins += [_plugin(_read(path)) for path in _files(os.path.join(folder, name), (".conf",))]
    if not plugins:
        raise CniError("no plugin configs found")
    return NetworkList(name, version, tuple(plugins), data, flags["disableCheck"], flags["disableGC"])


def parse_single(data: bytes) -> NetworkList:
    """One plugin's configuration as a list of one. Raises CniError in libcni's words."""
    plugin = _plugin(data)
    return NetworkList(str(plugin.get("name", "")), str(plugin.get("cniVersion", "")), (plugin,), data)


def _inline(body: dict[str, Any]) -> list[dict[str, Any]]:
    if "plugins" not in body:
        return []
    listed = body["plugins"]
    if not isinstance(listed, list):
        raise CniError(f"{_LIST}invalid 'plugins' type {_go(listed)}")
    if not listed:
        raise CniError(f"{_LIST}no plugins in list")
    plugins = []
    for number, plugin in enumerate(listed):
        try:
            plugins.append(_checked(plugin))
        except CniError as error:
            raise CniError(f"failed to parse plugin config {number}: {error.msg}") from error
    return plugins


def _plugin(data: bytes) -> dict[str, Any]:
    return _checked(_object(data, _SINGLE))


def _checked(plugin: Any) -> dict[str, Any]:
    if not isinstance(plugin, dict):
        raise CniError(f"{_SINGLE}a plugin is an object, not {_go(plugin)}")
    typed = config.decode(plugin, _Plugin, prefix=_SINGLE.removesuffix(": "))
    if not typed.type:
        raise CniError(f"{_SINGLE}missing 'type'")
    return plugin


def _version(body: dict[str, Any]) -> str:
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


def _boolean(body: dict[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise CniError(f'{_LIST}invalid value "{value.lower()}" for {key}')
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise CniError(f"{_LIST}invalid type {_go(value)} for {key}")
    return value


def _go(value: object) -> str:
    return next((name for kind, name in _GO_TYPES.items() if isinstance(value, kind)), "<nil>")


def _object(data: bytes, prefix: str) -> dict[str, Any]:
    try:
        body = config.parse(data)
    except ValueError as error:
        raise CniError(f"{prefix}{error}") from error
    if not isinstance(body, dict):
        raise CniError(f"{prefix}it must be an object, not {_go(body)}")
    return body


def _files(folder: str, endings: tuple[str, ...]) -> list[str]:
    return sorted(_named(folder, endings))


def _named(folder: str, endings: tuple[str, ...]) -> Iterator[str]:
    try:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name[max(name.rfind("."), 0) :] in endings and not os.path.isdir(path):
                yield path
    except FileNotFoundError:
        return
    except OSError as error:
        raise CniError(f"error reading {folder}: {error.strerror}") from error


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CniError(f"error reading {path}: {error.strerror}") from error
