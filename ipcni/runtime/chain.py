"""Calling the plugins of a list, as libcni does (protocol sheet 7)."""

import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.model import Done
from ipcni.protocol import config, delegate, result, skel
from ipcni.protocol.host import Host
from ipcni.protocol.request import VALID_ATTACHMENTS
from ipcni.runtime.cache import Cache, Entry
from ipcni.runtime.conf import NetworkList

Json = dict[str, Any]


class Attachment(msgspec.Struct, frozen=True):
    """One (container, interface) on a network, and what the runtime has to say about it. `netns` is a path."""

    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Json = {}


class Runtime(msgspec.Struct, frozen=True):
    """Executes plugins found on `path` (folders, colon-separated) with the runtime's own environment `env`."""

    host: Host
    env: Mapping[str, str]
    path: str
    cache: Cache = Cache()

    def add(self, net: NetworkList, at: Attachment) -> Json:
        """ADD of every plugin, each given the one before's result; the last one's result is cached and returned as it was labelled.

        Raises the first failure; what has been added until then is for a DEL to remove.
        """
        answer: Json | None = None
        for index, plugin in enumerate(net.plugins):
            with _told(plugin, "add"):
                path = delegate.find(plugin["type"], self.path)
                skel.check_environment("ADD", {**environment("ADD", at, self.path), "CNI_NETNS": at.netns or "-"})
                skel.check_network_name(net.name)
                done = self._execute("ADD", path, request_for(net, index, answer, at.capability_args), at)
                answer = _labelled(done, net.version)
        final = answer or {}
        entry = Entry(final, at.container_id, at.ifname, net.name, at.netns, at.args, at.capability_args)
        try:
            self.cache.save(entry, net.raw)
        except (OSError, CniError) as error:
            raise CniError(f'failed to set network "{net.name}" cached result: {error}') from error
        return final

    def check(self, net: NetworkList, at: Attachment) -> None:
        """CHECK of every plugin against the cached result."""
        if skel.number(net.version) < skel.number("0.4.0"):
            raise CniError(f'configuration version "{net.version}" does not support the CHECK command')
        if net.disable_check:
            return
        cached = cached_result(self.cache, net, at)
        for index, plugin in enumerate(net.plugins):
            self._call("CHECK", plugin, request_for(net, index, cached, at.capability_args), at)

    def delete(self, net: NetworkList, at: Attachment) -> None:
        """DEL of every plugin in reverse order; the cached result goes only when all went well."""
        cached: Json | None = None
        try:
            cached = cached_result(self.cache, net, at)
        except CniError:
            self.cache.forget(net.name, at.container_id, at.ifname)
        for index in reversed(range(len(net.plugins))):
            plugin = net.plugins[index]
            with _told(plugin, "delete"):
                self._call("DEL", plugin, request_for(net, index, cached, at.capability_args), at)
        self.cache.forget(net.name, at.container_id, at.ifname)

    def gc(self, net: NetworkList, valid: tuple[tuple[str, str], ...] | None) -> None:
        """DEL of what is cached and not among the valid (container id, ifname) pairs, then GC of every plugin.

        None says nothing about who is valid: all is deleted, and plugins are not told of any list.
        """
        if net.disable_gc:
            return
        problems = []
        for entry in self.cache.attachments(net.name):
            if (entry.container_id, entry.ifname) in (valid or ()):
                continue
            at = Attachment(entry.container_id, entry.netns, entry.ifname, entry.args, entry.capability_args)
            try:
                self.delete(net, at)
            except CniError as error:
                problems.append(f"failed to delete stale attachment {entry.container_id} {entry.ifname}: {error}")
        if skel.number(net.version) >= skel.number("1.1.0"):
            listed = None if valid is None else [{"containerID": name, "ifname": ifname} for name, ifname in valid]
            extra = {} if listed is None else dict.fromkeys(VALID_ATTACHMENTS, listed)
            for index, plugin in enumerate(net.plugins):
                try:
                    self._call("GC", plugin, {**request_for(net, index, None, {}), **extra}, Attachment())
                except CniError as error:
                    problems.append(f"failed to GC plugin {plugin['type']}: {error}")
        if problems:
            raise CniError("\n".join(problems))

    def status(self, net: NetworkList) -> None:
        """STATUS of every plugin; the first failure is raised with its code."""
        if skel.number(net.version) < skel.number("1.1.0"):
            return
        for index, plugin in enumerate(net.plugins):
            self._call("STATUS", plugin, request_for(net, index, None, {}), Attachment())

    def _call(self, verb: str, plugin: Json, conf: Json, at: Attachment) -> Done:
        return self._execute(verb, delegate.find(plugin["type"], self.path), conf, at)

    def _execute(self, verb: str, path: str, conf: Json, at: Attachment) -> Done:
        env = {**self.env, **environment(verb, at, self.path)}
        done = delegate.run(self.host, path, env, config.dump(config.in_order(conf)))
        return delegate.succeeded(done, path)


def cached_result(cache: Cache, net: NetworkList, at: Attachment) -> Json | None:
    """What DEL and CHECK hand on as prevResult, in the list's version; None where nothing is cached or the version has no such thing.

    Raises CniError for a file that cannot be understood.
    """
    if skel.number(net.version) < skel.number("0.4.0"):
        return None
    entry = cache.load(net.name, at.container_id, at.ifname)
    if entry is None:
        return None
    label = config.find(entry.result, "cniVersion") or net.version
    return result.encode(result.decode(entry.result, str(label)), net.version)


def request_for(net: NetworkList, index: int, prev_result: Json | None, capability_args: Json) -> Json:
    """What a plugin of a list is given on stdin (protocol sheet 7.2), GC's lists apart."""
    plugin = net.plugins[index]
    conf = {**plugin, "name": net.name, "cniVersion": net.version}
    if prev_result is not None:
        conf["prevResult"] = prev_result
    wanted = [name for name, yes in (plugin.get("capabilities") or {}).items() if yes and name in capability_args]
    if wanted:
        conf["runtimeConfig"] = {name: capability_args[name] for name in wanted}
    return conf


def environment(verb: str, at: Attachment, path: str) -> dict[str, str]:
    """The variables of one call: always all six."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": at.container_id,
        "CNI_NETNS": at.netns,
        "CNI_IFNAME": at.ifname,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in at.args),
        "CNI_PATH": path,
    }


@contextlib.contextmanager
def _told(plugin: Json, verb: str) -> Any:
    """A failure inside is told as libcni tells it."""
    try:
        yield
    except CniError as error:
        name = f' name="{plugin["name"]}"' if plugin.get("name") else ""
        raise CniError(f'plugin type="{plugin["type"]}"{name} failed ({verb}): {error}', error.code) from error


def _labelled(done: Done, version: str) -> Json:
    """A plugin's answer in its own version."""
    found = delegate.read_result(done, version or "0.1.0")
    body = config.parse(done.out.encode())
    label = config.find(body, "cniVersion") if isinstance(body, dict) else None
    return result.encode(found, str(label or version or "0.1.0"))
