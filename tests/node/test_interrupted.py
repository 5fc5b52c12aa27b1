"""SIGTERM at any line of Python that an ADD runs through: whatever the moment, nothing is left behind.

tests/node/test_kill.py sends it after random times, which are mostly spent waiting for a command; here are the moments in between.
"""

import json
import pathlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab import BIN, ROOT, Node
from tests.remains import network, published, remains

MOMENTS = 24
PROBE = f"""#!{ROOT}/bin/.venv/bin/python3 -I
import os, signal, sys

lines, began = 0, False

def line(frame, event, arg):
    global lines
    if event == "line":
        lines += 1
        if lines == at:
            os.kill(os.getpid(), signal.SIGTERM)
    return line

def call(frame, event, arg):
    global began
    began = began or frame.f_code.co_name == "handle"  # by then it listens to signals
    return line if began and "/ipcni/" in frame.f_code.co_filename else None

def leave(status):
    with open({{count!r}}, "w") as file:
        file.write(str(lines))
    end(status)

with open({{moment!r}}) as file:
    at = int(file.read())
end, os._exit = os._exit, leave
from ipcni.entry import main
sys.settrace(call)
main({{plugin!r}})
"""


class Probe:
    """A plugin that sends itself SIGTERM at the line of that number of all it runs through."""

    def __init__(self, folder: pathlib.Path, plugin: str) -> None:
        folder.mkdir()
        self.folder, self._moment, self._count = folder, folder / "moment", folder / "count"
        file = folder / plugin
        file.write_text(PROBE.format(count=str(self._count), moment=str(self._moment), plugin=plugin))
        file.chmod(0o755)
        self.at(0)

    def at(self, line: int) -> None:
        self._moment.write_text(str(line))

    @property
    def lines(self) -> int:
        """How many the last call has run through."""
        return int(self._count.read_text())


def bridge(node: Node, **keys: Any) -> dict[str, Any]:
    ranges = [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd00:44::/64"}]]
    ipam = {"type": "host-local", "ranges": ranges, "dataDir": node.data_dir}
    return network(node, macspoofchk=True, ipam=ipam, **keys)


def ptp(node: Node) -> dict[str, Any]:
    return {**bridge(node), "type": "ptp"}


CHAINS: dict[str, Callable[[Node], dict[str, Any]]] = {
    "bridge": bridge,
    "bridge, nftables": lambda node: bridge(node, ipMasqBackend="nftables"),
    "ptp": ptp,
    "firewall": lambda _: {**published(), "type": "firewall"},
    "firewall, nftables": lambda _: {**published(backend="nftables"), "type": "firewall"},
    "portmap": lambda _: published(),
    "portmap, nftables": lambda _: published(backend="nftables"),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_signal_at_any_line(node: Node, chain: str) -> None:
    conf, pod = CHAINS[chain](node), node.pod()
    probe = Probe(node.folder / "probe", conf["type"])

    def call(verb: str) -> Any:
        return node.call(verb, conf, pod, bin_dir=probe.folder, path=str(BIN))

    for _ in range(2):  # the second one finds everything that pods share
        call("ADD").ok()
        lines = probe.lines
        node.call("DEL", conf, pod).ok()
    assert remains(node) == {}
    dice = random.Random(chain)
    undone = 0
    for part in range(MOMENTS):
        moment = int(lines * (part + dice.random()) / MOMENTS)
        probe.at(moment)
        answer = call("ADD")
        if answer.status == 0:
            node.call("DEL", conf, pod).ok()
        else:
            assert answer.error()["code"] == 11, (moment, answer)
            undone += 1
        assert answer.stderr == ""
        assert remains(node) == {}, f"line {moment} of {lines}: {json.dumps(answer.json)}"
        assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert undone > MOMENTS / 2
