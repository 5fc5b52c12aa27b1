"""loopback on a real kernel (main sheet 8)."""

from typing import Any

import pytest

from tests.lab import Node, Pod


def conf(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "lo", "type": "loopback", **keys}


def lo(pod: Pod) -> dict[str, Any]:
    found: dict[str, Any] = pod.ip("addr", "show", "dev", "lo")[0]
    return found


def test_lo_is_set_up_and_down(node: Node) -> None:
    """Whatever CNI_IFNAME says."""
    pod = node.pod()
    result = node.call("ADD", conf(), pod, ifname="foo").ok()
    assert "UP" in lo(pod)["flags"]
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.path}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}],
    }
    assert node.call("CHECK", {**conf(), "prevResult": result}, pod, ifname="foo").stdout == b""
    for _ in range(2):
        assert node.call("DEL", conf(), pod, ifname="foo").stdout == b""
        assert "UP" not in lo(pod)["flags"]
    assert node.call("CHECK", conf(), pod).error()["msg"] == "loopback interface is down"


def test_without_ipv6(node: Node) -> None:
    pod = node.pod()
    pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    result = node.call("ADD", conf(), pod).ok()
    assert result["ips"] == [{"address": "127.0.0.1/8", "interface": 0}]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_the_layout_is_the_versions(node: Node, version: str) -> None:
    """The reference prints the newest one whatever was asked for (a defect)."""
    result = node.call("ADD", conf(cniVersion=version), node.pod()).ok()
    if version in ("0.1.0", "0.2.0"):
        assert (result["ip4"]["ip"], result["ip6"]["ip"]) == ("127.0.0.1/8", "::1/128")
    else:
        assert [ip.get("version") for ip in result["ips"]] == ([None, None] if version == "1.0.0" else ["4", "6"])


def test_prev_result_is_handed_on(node: Node) -> None:
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.0.0.2/24", "interface": 0}]}
    assert node.call("ADD", conf(prevResult=before), node.pod()).ok() == before
    error = node.call("ADD", conf(prevResult={"ips": 5}), node.pod()).error()
    assert error["msg"].startswith("failed to parse prevResult: ")


def test_an_address_that_is_no_loopback_address(node: Node) -> None:
    """Only with somebody who has used lo before; what this ADD did is taken back."""
    pod = node.pod()
    pod.run("ip", "addr", "add", "10.9.9.9/32", "dev", "lo")
    error = node.call("ADD", conf(), pod).error()
    assert error["msg"] == 'loopback interface found with non-loopback address "10.9.9.9"'


def test_namespaces_that_are_none(node: Node) -> None:
    error = node.call("ADD", conf(), "/run/netns/none").error()
    assert error["msg"] == 'failed to Statfs "/run/netns/none": no such file or directory'
    assert node.call("CHECK", conf(), "/run/netns/none").error()["msg"].startswith("failed to Statfs")
    assert node.call("DEL", conf(), "/run/netns/none").stdout == b""
    assert node.call("DEL", conf()).stdout == b""
    assert "unknown FS magic" in node.call("ADD", conf(), "/etc/passwd").error()["msg"]


def test_status_and_gc(node: Node) -> None:
    assert node.call("STATUS", conf()).stdout == b""
    assert node.call("GC", conf(**{"cni.dev/valid-attachments": []})).stdout == b""
