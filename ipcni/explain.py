"""What a runtime would have the plugins do: the same code, on a host that only says it (shell.show.Printer)."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ipcni import __version__, settings
from ipcni.errors import CniError
from ipcni.protocol import config, delegate, result, skel
from ipcni.runtime import chain as runtime
from ipcni.runtime.cache import Cache
from ipcni.runtime.chain import Attachment
from ipcni.runtime.conf import NetworkList
from ipcni.shell import show
from ipcni.shell.show import Block, Printer

VERBS = ("ADD", "DEL", "CHECK", "GC")
Json = dict[str, Any]
_NOTHING = {
    "DEL": "Nothing to run: nothing of this attachment is here.",
    "GC": "Nothing to run: nothing is here of attachments that are no more (and without --valid none is taken for such).",
}


def split(words: tuple[str, ...]) -> tuple[str, str]:
    """Verb and source of `explain [VERB] [SOURCE]`. Raises CniError for more than that."""
    verb = "ADD"
    if words and words[0].upper() in VERBS:
        verb, words = words[0].upper(), words[1:]
    if len(words) > 1:
        raise CniError(f"too much: {' '.join(words[1:])}", details="ipcni explain [ADD|DEL|CHECK|GC] [CONFLIST|CONF|NETWORK|-]")
    return verb, words[0] if words else ""


class Source(Protocol):
    """Where the plugins' configurations come from."""

    @property
    def title(self) -> str:
        """The network, for the reader."""
        ...

    def requests(self, verb: str) -> list[int]:
        """The plugins in the order of their being called."""
        ...

    def stdin(self, index: int, verb: str, answer: Json | None, at: Attachment) -> bytes:
        """What a plugin is given, `answer` being ADD's result so far."""
        ...


class Listed:
    """A configuration list, called as a runtime calls it."""

    def __init__(self, path: str, net: NetworkList, cache_dir: str, valid: runtime.Valid = msgspec.UNSET) -> None:
        """`valid` is what GC leaves alone."""
        self._net, self._valid = net, valid
        self._cache = Cache(cache_dir)
        types = ", ".join(str(plugin["type"]) for plugin in net.plugins)
        self.title = f"network {net.name} ({types}; {path})"

    def requests(self, verb: str) -> list[int]:
        indexes = list(range(len(self._net.plugins)))
        return indexes[::-1] if verb == "DEL" else indexes

    def stdin(self, index: int, verb: str, answer: Json | None, at: Attachment) -> bytes:
        if verb == "GC":
            return config.dump(config.in_order(runtime.request_for(self._net, index, None, {}, self._valid)))
        if verb != "ADD":
            with contextlib.suppress(CniError) if verb == "DEL" else contextlib.nullcontext():  # DEL needs no result
                answer = runtime.cached_result(self._cache, self._net, at)
        return config.dump(config.in_order(runtime.request_for(self._net, index, answer, at.capability_args)))


class Stdin:
    """What a runtime wrote on one plugin's standard input."""

    title = "the configuration on stdin"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def requests(self, verb: str) -> list[int]:  # noqa: ARG002
        return [0]

    def stdin(self, index: int, verb: str, answer: Json | None, at: Attachment) -> bytes:  # noqa: ARG002
        return self._data


class Told(msgspec.Struct, frozen=True):
    """What was said: the blocks in order, ADD's answer, why it ended early or what CHECK found (None: fine), the looks it took, and the
    questions that could not be answered."""

    blocks: tuple[Block, ...]
    answer: Json | None
    failure: CniError | None
    looks: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]

    def text(self, source: Source, verb: str, at: Attachment, form: str, *, as_run: bool, undo: bool) -> str:
        """All of it as a script or a page."""
        head = [
            f"{verb} for {source.title}",
            "all attachments but the valid ones" if verb == "GC" else f"container {at.container_id}, {at.ifname} in {at.netns}",
            f"explained by ipcni {__version__}",
        ]
        notes = [f"could not look: {' '.join(text.split())}; it counts as absent" for text in dict.fromkeys(self.unknown)]
        if not self._told(verb) and not self.failure:
            notes.append(_NOTHING.get(verb, "Nothing to run."))
        if form == "markdown":
            parts = [f"# {head[0]}\n\n{head[1]}; {head[2]}\n"]
            parts += [show.markdown(self._told(verb), undo=undo)]
            parts += [f"> {note}\n" for note in notes]
            return "\n".join(parts)
        lines = ["#!/bin/sh", *(f"# {line}" for line in head), "set -eu"]
        text = "\n".join(lines) + "\n" + show.script(self._told(verb), undo=undo, as_run=as_run)
        if self.answer is not None and not self.failure:
            text += show.result_comment(self.answer)
        return text + "".join(f"# {note}\n" for note in notes)

    def document(self, source: Source, verb: str, at: Attachment) -> Json:
        """All of it as data; docs/explain.md has the schema."""
        return {
            "schema": 1,
            "verb": verb,
            "source": source.title,
            "containerId": at.container_id,
            "ifname": at.ifname,
            "netns": at.netns,
            "blocks": show.document(self._told(verb)),
            "result": self.answer,
            "error": self.failure.json() if self.failure else None,
            "unknown": list(self.unknown),
        }

    def _told(self, verb: str) -> tuple[Block, ...]:
        """The blocks; CHECK does nothing but look, so its looks are what there is to tell."""
        if verb != "CHECK":
            return self.blocks
        return tuple(Block(plugin, "", lines=(command,)) for plugin, command in self.looks)


def chain(source: Source, verb: str, at: Attachment, path: str, env: Mapping[str, str]) -> Told:
    """Explains one verb: each plugin in the order a runtime calls it, ADD's results handed on.

    Raises nothing that a plugin would answer with: a failure is part of what is told.
    """
    printer = Printer(settings.load(env), env)
    answer: Json | None = None
    failure: CniError | None = None
    try:
        for index in source.requests(verb):
            body = _plugin(source.stdin(index, verb, answer, at), verb, at, path, printer, env)
            answer = body if verb == "ADD" else None
    except CniError as error:
        failure = error
    return Told(tuple(printer.blocks), answer, failure, tuple(printer.looks), tuple(printer.facts.unknown))


def _plugin(stdin: bytes, verb: str, at: Attachment, path: str, printer: Printer, env: Mapping[str, str]) -> Json:
    try:
        conf = config.parse(stdin)
    except ValueError as error:
        raise CniError(f"the configuration is no JSON: {error}") from error
    plugin = config.find(conf, "type") if isinstance(conf, dict) else None
    if not isinstance(plugin, str):
        raise CniError("the configuration names no plugin", details="it needs a `type`")
    variables = {**env, **runtime.environment(verb, at, path)}
    skel.check_environment(verb, variables)
    executable = delegate.find(plugin, path)
    with printer.plugin(plugin):
        if not delegate.is_ours(executable):
            printer.execute(executable, variables, stdin)
            return {}
        req = skel.request(plugin, verb, variables, stdin)
        answer = skel.dispatch(req, printer)
        return result.encode(answer, req.version) if verb == "ADD" else {}


def own_path(given: str) -> str:
    """The folders to look for plugins in: those given, else where launchers of this suite are. Raises CniError when there are none."""
    if given:
        return given
    checkout = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin")
    for folder in (checkout, "/opt/cni/bin"):
        if delegate.is_ours(os.path.join(folder, "loopback")):
            return folder
    raise CniError("ipcni's plugins are not installed", details="run `ipcni install`, or name their folder with --cni-path")
