"""firewall beside Debian's Go plugin: what one makes the other checks and removes, and both make the same."""

from typing import Any

import pytest

from tests.lab import BIN, GO, Node
from tests.node.test_firewall import NETNS, V4, V6, config, rules

pytestmark = pytest.mark.skipif(not (GO / "firewall").exists(), reason="containernetworking-plugins is not installed")

SUITES = {"go": GO, "ipcni": BIN}
CASES: dict[str, list[dict[str, Any]]] = {
    "open": [{}],
    "admin chain": [{}, {"iptablesAdminChainName": "CNI-foobar"}],
    "same-bridge": [{"ingressPolicy": "same-bridge"}],
    "two bridges": [{"ingressPolicy": "same-bridge"}, {"ingressPolicy": "same-bridge", "links": ("cni9",)}],
}


def configs(case: str) -> list[dict[str, Any]]:
    """A config for each pod, in the order they come; Debian's plugin knows 1.0.0."""
    found = []
    for number, keys in enumerate(CASES[case]):
        conf = config(V4.replace(".2/", f".{2 + number}/"), V6.replace("::2", f"::{2 + number}"), **keys)
        found.append({**conf, "cniVersion": "1.0.0", "prevResult": {**conf["prevResult"], "cniVersion": "1.0.0"}})
    return found


def everything(node: Node) -> list[str]:
    """The rules of both families; Debian's plugin knows no `isolated`, and its comments don't."""
    return [line.replace("|isolated)", ")") for line in [*rules(node), *rules(node, "ip6tables")]]


def add(node: Node, suite: str, case: str) -> list[Any]:
    return [
        node.call("ADD", conf, NETNS, container=f"cid{number}", bin_dir=SUITES[suite]).ok()
        for number, conf in enumerate(configs(case))
    ]


@pytest.mark.parametrize(("adder", "remover"), [("go", "ipcni"), ("ipcni", "go")])
@pytest.mark.parametrize("case", CASES)
def test_the_other_suite_takes_over(node: Node, case: str, adder: str, remover: str) -> None:
    add(node, adder, case)
    for number, conf in enumerate(configs(case)):
        for suite in (remover, adder):
            node.call("CHECK", conf, NETNS, container=f"cid{number}", bin_dir=SUITES[suite]).ok()
        for _ in range(2):
            node.call("DEL", conf, container=f"cid{number}", bin_dir=SUITES[remover]).ok()
    assert [line for line in everything(node) if "10.88" in line or "fd00" in line] == []


@pytest.mark.parametrize("case", CASES)
def test_both_make_the_same(node: Node, other_node: Node, case: str) -> None:
    results = [add(node, "go", case), add(other_node, "ipcni", case)]
    assert everything(node) == everything(other_node)
    for theirs, ours in zip(*results, strict=True):
        assert (theirs["ips"], theirs["interfaces"]) == (ours["ips"], ours["interfaces"])


@pytest.mark.parametrize(("first", "second"), [("go", "ipcni"), ("ipcni", "go")])
def test_an_add_by_either_suite(node: Node, first: str, second: str) -> None:
    """No runtime does that (spec, section 2): shared rules are not made again, a pod's own are gone with as many DELs."""
    add(node, first, "admin chain")
    once = everything(node)
    add(node, second, "admin chain")
    assert set(everything(node)) == set(once)
    assert [line for line in everything(node) if "10.88" not in line and "fd00" not in line] == [
        line for line in once if "10.88" not in line and "fd00" not in line
    ]
    for suite in (first, second):
        for number, conf in enumerate(configs("admin chain")):
            node.call("DEL", conf, container=f"cid{number}", bin_dir=SUITES[suite]).ok()
    assert [line for line in everything(node) if "10.88" in line or "fd00" in line] == []


def test_isolation_by_the_other_suite_is_enough(node: Node) -> None:
    add(node, "go", "two bridges")
    once = rules(node)
    add(node, "ipcni", "two bridges")
    assert rules(node) == once
