"""What a runtime would have the plugins do: the same code, on a host that only says it (shell.show.Printer)."""

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from ipcni import settings
from ipcni.errors import CniError
from ipcni.protocol import config, delegate, result, skel
from ipcni.shell.show import Block, Printer


class Target(msgspec.Struct, frozen=True):
    """For which attachment, with which plugins. `netns` is a path; `verb` is ADD, DEL or CHECK."""

    verb: str
    container_id: str
    netns: str
    ifname: str
    args: str
    cni_path: str


class Told(msgspec.Struct, frozen=True):
    """What was said: the blocks in order, ADD's answer, CHECK's or an early end's verdict (empty: fine), the looks that CHECK takes,
    and the questions that could not be answered."""

    blocks: tuple[Block, ...]
    answer: dict[str, Any] | None
    failure: CniError | None
    looks: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]


def chain(requests: "Requests", target: Target, env: Mapping[str, str]) -> Told:
    """Explains one verb of a list: each plugin in the order a runtime calls it, ADD's results handed on.

    `requests` gives the stdin object of each plugin, from the result so far. Never raises what a plugin would answer with: the failure
    is part of what is told.
    """
    printer = Printer(settings.load(env), env)
    answer: dict[str, Any] | None = None
    failure: CniError | None = None
    try:
        for index in requests.order(target.verb):
            conf = requests.stdin(index, target.verb, answer)
            body = _plugin(conf, target, printer, env)
            if target.verb == "ADD":
                answer = body
    except CniError as error:
        failure = error
    return Told(tuple(printer.blocks), answer, failure, tuple(printer.looks), tuple(printer.facts.unknown))


class Requests:
    """The plugins of a list and what each is given."""

    def order(self, verb: str) -> list[int]:
        """The plugins' places in the list, in the order of their being called."""
        raise NotImplementedError

    def stdin(self, index: int, verb: str, answer: dict[str, Any] | None) -> dict[str, Any]:
        """The object on a plugin's standard input."""
        raise NotImplementedError


def _plugin(conf: dict[str, Any], target: Target, printer: Printer, env: Mapping[str, str]) -> dict[str, Any]:
    plugin = str(conf.get("type") or "")
    path = delegate.find(plugin, target.cni_path)
    variables = {
        **env,
        "CNI_COMMAND": target.verb,
        "CNI_CONTAINERID": target.container_id,
        "CNI_NETNS": target.netns,
        "CNI_IFNAME": target.ifname,
        "CNI_ARGS": target.args,
        "CNI_PATH": target.cni_path,
    }
    stdin = config.dump(conf)
    skel.check_environment(target.verb, variables)
    with printer.plugin(plugin):
        if not delegate.is_ours(path):
            printer.execute(path, variables, stdin)
            return {}
        req = skel.request(plugin, target.verb, variables, stdin)
        return result.encode(skel.dispatch(req, printer), req.version) if target.verb == "ADD" else {}


def own_path(given: str) -> str:
    """The folders to look for plugins in: those given, else where launchers of this suite are.

    Raises CniError when there are none.
    """
    if given:
        return given
    checkout = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin")
    for folder in (checkout, "/opt/cni/bin"):
        if delegate.is_ours(os.path.join(folder, "loopback")):
            return folder
    raise CniError("ipcni's plugins are not installed", details="run `ipcni install`, or name their folder with --cni-path")
