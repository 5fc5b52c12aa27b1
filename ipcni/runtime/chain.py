"""Calling the plugins of a list, as libcni does (protocol sheet 7)."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ipcni.errors import CniError
from ipcni.model import Done
from ipcni.protocol import config, delegate, result, skel
from ipcni.protocol.host import Host
from ipcni.protocol.quoting import quote
from ipcni.protocol.request import VALID_ATTACHMENTS
from ipcni.runtime.cache import Cache, Entry
from ipcni.runtime.conf import NetworkList

Json = dict[str, Any]
# GC's (container id, ifname) pairs; None is JSON's null, which libcni sends for an empty list too, UNSET is no list at all.
Valid = tuple[tuple[str, str], ...] | None | UnsetType


class Attachment(msgspec.Struct, frozen=True):
    """One (container, interface) on a network, and what the runtime has to say about it. `netns` is a path."""

    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Json = {}


class Runtime(msgspec.Struct, frozen=True):
    """Executes plugins found on `path` (folders, colon-separated) with the runtime's own environment `env`.

    It is for the caller to see that a container has one operation at a time, and that GC runs alone (protocol sheet 7.1).
    """

    host: Host
    env: Mapping[str, str]
    path: str
    cache: Cache = Cache()

    def add(self, net: NetworkList, at: Attachment) -> Json:
        """ADD of every plugin, each given the one before's result; the last one's is cached and returned in its own version.

        Raises the first failure as CniError; what has been added until then is for a DEL to remove.
        """
        answer: Json | None = None
        for index, plugin in enumerate(net.plugins):
            with _told(plugin, "add"):
                path = delegate.find(plugin["type"], self.path)
                skel.check_container_id(at.container_id)
                skel.check_network_name(net.name)
                skel.check_ifname(at.ifname)
                done = self._execute("ADD", path, request_for(net, index, answer, at.capability_args), at)
                body, label = delegate.answer(done, net.version or "0.1.0")
                answer = result.encode(result.decode(body, label), label)
        final = answer or {}
        entry = Entry(final, at.container_id, at.ifname, net.name, at.netns, at.args, at.capability_args)
        try:
            self.cache.save(entry, net.raw)
        except (OSError, CniError) as error:
            raise CniError(f"failed to set network {quote(net.name)} cached result: {error}") from error
        return final

    def check(self, net: NetworkList, at: Attachment) -> None:
        """CHECK of every plugin against the cached result. Raises the first plugin's CniError."""
        if skel.number(net.version) < skel.number("0.4.0"):
            raise CniError(f"configuration version {quote(net.version)} does not support the CHECK command")
        if net.disable_check:
            return
        cached = cached_result(self.cache, net, at)
        for index in range(len(net.plugins)):
            self._call("CHECK", net, index, at, request_for(net, index, cached, at.capability_args))

    def delete(self, net: NetworkList, at: Attachment) -> None:
        """DEL of every plugin in reverse order, to the first failure; the cached result goes when there is none."""
        skel.number(net.version)  # no version at all must not pass for a broken file below, and cost it
        cached: Json | None = None
        try:
            cached = cached_result(self.cache, net, at)
        except CniError:
            self.cache.forget(net.name, at.container_id, at.ifname)
        for index, plugin in reversed(list(enumerate(net.plugins))):
            with _told(plugin, "delete"):
                self._call("DEL", net, index, at, request_for(net, index, cached, at.capability_args))
        self.cache.forget(net.name, at.container_id, at.ifname)

    def gc(self, net: NetworkList, valid: Valid = UNSET) -> None:
        """DEL of what is cached and not valid, then GC of every plugin. Without a list nothing is valid, and plugins get none.

        Raises one CniError with all that failed, a line each.
        """
        if net.disable_gc:
            return
        problems = self._delete_stale(net, valid or ())
        if skel.number(net.version) >= skel.number("1.1.0"):
            for index, plugin in enumerate(net.plugins):
                with _collected(problems, f"failed to GC plugin {plugin['type']}"):
                    self._call("GC", net, index, Attachment(), request_for(net, index, None, {}, valid))
        if problems:
            raise CniError("\n".join(map(str, problems)))

    def status(self, net: NetworkList) -> None:
        """STATUS of every plugin. Raises the first failure with its code."""
        if skel.number(net.version) < skel.number("1.1.0"):
            return
        for index in range(len(net.plugins)):
            self._call("STATUS", net, index, Attachment(), request_for(net, index, None, {}))

    def validate(self, net: NetworkList) -> frozenset[str]:
        """Asks every plugin whether it speaks the list's version; the capabilities that are wanted (protocol sheet 7.6).

        Raises one CniError with all that is wrong.
        """
        problems: list[CniError] = []
        for plugin in net.plugins:
            with _collected(problems):
                self._speaks(plugin["type"], net.version or "0.1.0")
        if problems:
            details = "; ".join(each.details for each in problems if each.details)
            raise CniError(f"[{' '.join(each.msg for each in problems)}]", details=details)
        return frozenset(name for plugin in net.plugins for name in _capabilities(plugin))

    def _delete_stale(self, net: NetworkList, valid: tuple[tuple[str, str], ...]) -> list[CniError]:
        problems: list[CniError] = []
        for entry in self.cache.attachments(net.name):
            if (entry.container_id, entry.ifname) in valid:
                continue
            at = Attachment(entry.container_id, entry.netns, entry.ifname, entry.args, entry.capability_args)
            with _collected(problems, f"failed to delete stale attachment {at.container_id} {at.ifname}"):
                self.delete(net, at)
        return problems

    def _speaks(self, plugin: str, version: str) -> None:
        path = delegate.find(plugin, self.path)
        dummies = environment("VERSION", Attachment(netns="dummy", ifname="dummy"), "dummy")  # the first plugins wanted some
        try:
            done = delegate.run(self.host, path, {**self.env, **dummies}, config.dump({"cniVersion": skel.CURRENT}))
            spoken = delegate.versions(delegate.succeeded(done, path))
        except CniError as error:
            if error.msg != "unknown CNI_COMMAND: VERSION":
                raise
            spoken = ("0.1.0",)
        if version not in spoken:
            raise CniError(f"plugin {plugin} does not support config version {quote(version)}")

    def _call(self, verb: str, net: NetworkList, index: int, at: Attachment, conf: Json) -> None:
        self._execute(verb, delegate.find(net.plugins[index]["type"], self.path), conf, at)

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
    try:
        entry = cache.load(net.name, at.container_id, at.ifname)
        if entry is None:
            return None
        label = config.find(entry.result, "cniVersion") or "0.1.0"
        return result.encode(result.decode(entry.result, str(label)), net.version)
    except CniError as error:
        raise CniError(f"failed to get network {quote(net.name)} cached result: {error}") from error


def request_for(net: NetworkList, index: int, prev_result: Json | None, capability_args: Json, valid: Valid = UNSET) -> Json:
    """The object on a plugin's stdin (protocol sheet 7.2), from the configured one and what the verb adds to it.

    ADD: the plugin before's result (None for the first) and capability arguments; DEL and CHECK: the cached result and the
    capability arguments; GC: None, {} and the valid attachments; STATUS: None and {}.
    """
    plugin = net.plugins[index]
    injected: Json = {"name": net.name, "cniVersion": net.version}
    if prev_result is not None:
        injected["prevResult"] = prev_result
    if wanted := {name: capability_args[name] for name in _capabilities(plugin) if name in capability_args}:
        injected["runtimeConfig"] = wanted
    if valid is not UNSET:
        listed = None if valid is None else [{"containerID": each, "ifname": ifname} for each, ifname in valid]
        injected |= dict.fromkeys(VALID_ATTACHMENTS, listed)
    spellings = {key.lower() for key in injected}
    return {key: value for key, value in plugin.items() if key.lower() not in spellings} | injected


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


def _capabilities(plugin: Json) -> list[str]:
    """The capabilities a plugin wants."""
    return [name for name, wanted in (config.find(plugin, "capabilities") or {}).items() if wanted]


@contextlib.contextmanager
def _told(plugin: Json, verb: str) -> Iterator[None]:
    """A failure inside is told as libcni tells it."""
    try:
        yield
    except CniError as error:
        name = config.find(plugin, "name")
        named = f" name={quote(name)}" if name else ""
        what = f"plugin type={quote(plugin['type'])}{named} failed ({verb})"
        raise CniError(f"{what}: {error.msg}", error.code, error.details) from error


@contextlib.contextmanager
def _collected(problems: list[CniError], what: str = "") -> Iterator[None]:
    """A failure inside is put with the others."""
    try:
        yield
    except CniError as error:
        problems.append(CniError(f"{what}: {error.msg}" if what else error.msg, error.code, error.details))
