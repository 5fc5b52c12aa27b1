"""dhcp: plugin and daemon of different suites, and the same lease whoever asks for it."""

import pathlib
from typing import Any

import pytest

from tests.dhcp import bridge, conf, running, served, wired
from tests.lab import BIN, GO, Node

pytestmark = pytest.mark.skipif(not (GO / "dhcp").exists(), reason="containernetworking-plugins is not installed")

SUITES = [(GO, BIN), (BIN, GO), (BIN, BIN), (GO, GO)]
KEYS: dict[str, Any] = {
    "provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}],
    "request": [{"option": "121"}, {"option": "33"}],
}
OPTIONS = {
    "router": ["--dhcp-option=3,192.168.1.1"],
    "classless": ["--dhcp-option=3,192.168.1.1", "--dhcp-option=121,10.0.0.0/8,192.168.1.9,172.16.0.0/16,0.0.0.0"],
    "static": ["--dhcp-option=3,192.168.1.1", "--dhcp-option=33,10.0.0.0,10.1.2.3,192.168.1.0,192.168.2.3"],
}


def answer(suite: pathlib.Path, keeper: pathlib.Path, node: Node, options: list[str]) -> Any:
    """ADD, CHECK and DEL with one suite's plugin and the other one's daemon; ADD's answer."""
    with running(node, bin_dir=keeper) as daemon, served(node, *options) as server:
        pod = wired(node)
        version = {"cniVersion": "1.0.0"}
        request = {**conf(daemon, **KEYS), **version}
        result = node.call("ADD", request, pod, bin_dir=suite, args="K8S_POD_NAME=pod1").ok()
        assert list(server.leases.items()) == [("192.168.1.5", "cid1/lan/eth0")]
        assert "client provides name: pod1" in server.log
        asked = server.log.count("DHCPDISCOVER")
        assert node.call("CHECK", request, pod, bin_dir=suite).ok() is None
        assert server.log.count("DHCPDISCOVER") == asked or keeper == GO  # 1.1.1 gets a second lease
        node.call("DEL", request, pod, bin_dir=suite).ok()
        node.call("DEL", request, pod, bin_dir=suite).ok()
        gone = {**request, "ipam": {**request["ipam"], "provide": [{"option": "bogus"}]}}
        error = node.call("ADD", gone, pod, bin_dir=suite, container="cid2").error()
        assert error["msg"].startswith('error calling DHCP.Allocate: Can not parse option "bogus": ')
        if keeper == BIN:
            server.settled({})
    return result


@pytest.mark.parametrize(("suite", "keeper"), SUITES)
@pytest.mark.parametrize("options", OPTIONS)
def test_any_plugin_with_any_daemon(node: Node, suite: pathlib.Path, keeper: pathlib.Path, options: str) -> None:
    expected: dict[str, Any] = {
        "router": [{"dst": "0.0.0.0/0", "gw": "192.168.1.1"}],
        "classless": [{"dst": "10.0.0.0/8", "gw": "192.168.1.9"}, {"dst": "172.16.0.0/16", "gw": "0.0.0.0"}],
        "static": [
            {"dst": "10.0.0.0/8", "gw": "10.1.2.3"},
            {"dst": "192.168.1.0/24", "gw": "192.168.2.3"},
            {"dst": "0.0.0.0/0", "gw": "192.168.1.1"},
        ],
    }
    result = answer(suite, keeper, node, OPTIONS[options])
    routes = [{key: route[key] for key in ("dst", "gw")} for route in result["routes"]]
    assert result["ips"] == [{"address": "192.168.1.5/24", "gateway": "192.168.1.1"}]
    assert routes == expected[options]


@pytest.mark.parametrize(("first", "second"), [(GO, BIN), (BIN, GO)])
def test_a_pod_that_moves_to_the_other_suite_keeps_its_address(node: Node, first: pathlib.Path, second: pathlib.Path) -> None:
    """Added with one daemon, checked and deleted with the other: the identifier is the same."""
    with served(node, "--dhcp-option=3,192.168.1.1") as server:
        pod = node.pod()
        with running(node, bin_dir=first) as daemon:
            network = {**bridge(daemon), "cniVersion": "1.0.0"}
            result = node.call("ADD", network, pod, bin_dir=first, path=str(first)).ok()
        with running(node, bin_dir=second):
            node.call("CHECK", {**network, "prevResult": result}, pod, bin_dir=second, path=str(second)).ok()
            assert list(server.leases) == ["192.168.1.5"]
            node.call("DEL", {**network, "prevResult": result}, pod, bin_dir=second, path=str(second)).ok()
        assert [link["ifname"] for link in pod.ip("link", "show")] == ["lo"]


def test_the_other_daemon_knows_neither_gc_nor_status(node: Node) -> None:
    with running(node, bin_dir=GO) as daemon:
        node.call("STATUS", conf(daemon)).ok()
        node.call("GC", {**conf(daemon), "cni.dev/valid-attachments": []}).ok()
