"""loopback and static beside Debian's Go plugins."""

from typing import Any

import pytest

from tests.lab import BIN, GO, Node
from tests.state import differences, settle, snapshot

pytestmark = pytest.mark.skipif(not (GO / "loopback").exists(), reason="containernetworking-plugins is not installed")

SUITES = [(GO, BIN), (BIN, GO)]
LO: dict[str, Any] = {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}
STATIC: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "podnet",
    "type": "bridge",
    "ipam": {
        "type": "static",
        "addresses": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}, {"address": "fd00:7::9/64"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.7.0.2"}],
    },
}


@pytest.mark.parametrize(("adder", "remover"), SUITES)
def test_loopback(node: Node, other_node: Node, adder: Any, remover: Any) -> None:
    """Up by one, down by the other, and the same state on the way."""
    states = []
    for suite, each in ((adder, node), (remover, other_node)):
        pod = each.pod()
        result = each.call("ADD", LO, pod, bin_dir=suite).ok()
        assert [ip["address"] for ip in result["ips"]] == ["127.0.0.1/8", "::1/128"]
        settle(each, pod)
        states.append(snapshot(each, [pod])["pod0"])
        each.call("CHECK", {**LO, "prevResult": result}, pod, bin_dir=remover).ok()
    assert differences(states[0], states[1]) == []
    node.call("DEL", LO, node.pods[0], bin_dir=remover).ok()
    assert "UP" not in node.pods[0].ip("link", "show", "lo")[0]["flags"]


@pytest.mark.parametrize(("adder", "remover"), SUITES)
def test_static(node: Node, other_node: Node, adder: Any, remover: Any) -> None:
    """The same answer, which the other suite checks and deletes."""
    results = []
    for suite, other, each in ((adder, remover, node), (remover, adder, other_node)):
        pod = each.pod()
        result = each.call("ADD", STATIC, pod, bin_dir=suite, path=str(suite)).ok()
        results.append({key: value for key, value in result.items() if key in ("ips", "routes")})
        each.call("CHECK", {**STATIC, "prevResult": result}, pod, bin_dir=other, path=str(other)).ok()
        each.call("DEL", {**STATIC, "prevResult": result}, pod, bin_dir=other, path=str(other)).ok()
        assert [link["ifname"] for link in pod.ip("link", "show")] == ["lo"]
    assert results[0] == results[1]
