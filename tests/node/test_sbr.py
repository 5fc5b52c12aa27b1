"""sbr on a real kernel: rules and tables, and the recorded cases of the meta sheet (6, 9)."""

import pathlib
from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod
from tests.remains import tools


def prepared(node: Node, *more: str) -> Pod:
    """A pod with two links, the second of which sbr is for."""
    pod = node.pod()
    for name, address in (("eth0", "10.0.0.2/24"), ("net1", "192.168.1.209/24")):
        pod.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"p{name}")
        for each in (name, f"p{name}"):
            pod.run("ip", "link", "set", each, "addrgenmode", "none", "up")
        pod.run("ip", "addr", "add", address, "dev", name)
    for words in ("default via 10.0.0.1", "192.168.2.0/24 via 192.168.1.2", *more):
        pod.run("ip", *(["-6"] if ":" in words.split()[0] else []), "route", "add", *words.split())
    return pod


def ip(address: str, gateway: str = "") -> dict[str, Any]:
    return {"address": address, "interface": 0, **({"gateway": gateway} if gateway else {})}


ONE = (ip("192.168.1.209/24", "192.168.1.1"),)


def conf(*ips: dict[str, Any], **keys: Any) -> dict[str, Any]:
    prev = {"cniVersion": "1.0.0", "interfaces": [{"name": "net1", "sandbox": "x"}], "ips": list(ips)}
    return {"cniVersion": "1.0.0", "name": "podnet", "type": "sbr", **({"prevResult": prev} if ips else {}), **keys}


def call(node: Node, verb: str, wanted: dict[str, Any], pod: Pod | str, **more: Any) -> Any:
    return node.call(verb, wanted, pod, ifname="net1", **more)


def rules(pod: Pod, family: int = 4) -> list[str]:
    lines = pod.run("ip", f"-{family}", "rule").stdout.splitlines()
    return [" ".join(line.split()) for line in lines if "from all" not in line]


def table(pod: Pod, name: str | int, family: int = 4) -> list[str]:
    lines = pod.run("ip", f"-{family}", "route", "show", "table", str(name), check=False).stdout.splitlines()
    return sorted(" ".join(line.split()) for line in lines)


def refused(node: Node, wanted: dict[str, Any], pod: Pod) -> str:
    before = (rules(pod), table(pod, "all"))
    error = call(node, "ADD", wanted, pod).error()
    assert (rules(pod), table(pod, "all")) == before
    return str(error["msg"])


def test_the_links_routes_move_to_a_table(node: Node) -> None:
    pod = prepared(node)
    wanted = conf(*ONE)
    assert call(node, "ADD", wanted, pod).ok() == wanted["prevResult"]
    assert rules(pod) == ["32765: from 192.168.1.209 lookup 100"]
    assert table(pod, "main") == ["10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.2", "default via 10.0.0.1 dev eth0"]
    assert table(pod, 100) == [
        "192.168.1.0/24 dev net1 proto kernel scope link src 192.168.1.209",
        "192.168.2.0/24 via 192.168.1.2 dev net1",
        "default via 192.168.1.1 dev net1",
    ]
    call(node, "CHECK", wanted, pod).ok()
    for known in (conf(), conf()):
        call(node, "DEL", known, pod).ok()
        assert rules(pod) == []
    assert "no rule for 192.168.1.209" in call(node, "CHECK", wanted, pod).error()["msg"]


def test_several_addresses_have_a_table_each(node: Node) -> None:
    pod = prepared(node)
    for address in ("192.168.101.209/24", "fd00::10/64"):
        pod.run("ip", "addr", "add", address, "dev", "net1", *(["nodad"] if ":" in address else []))
    pod.run("ip", "route", "add", "192.168.3.0/24", "dev", "net1")
    pod.run("ip", "-6", "route", "add", "fd01::/64", "via", "fd00::2")
    ips = (*ONE, {**ip("192.168.101.209/24", "192.168.101.1"), "interface": 7}, ip("fd00::10/64", "fd00::1"))
    call(node, "ADD", conf(*ips), pod).ok()
    assert rules(pod) == ["32764: from 192.168.101.209 lookup 101", "32765: from 192.168.1.209 lookup 100"]
    assert rules(pod, 6) == ["32765: from fd00::10 lookup 102"]
    assert [line.partition(" dev")[0] for line in table(pod, 101)] == [
        "192.168.101.0/24",
        "192.168.3.0/24",
        "default via 192.168.101.1",
    ]
    assert [line.partition(" dev")[0] for line in table(pod, 102, 6)] == [
        "default via fd00::1",
        "fd00::/64",
        "fd01::/64 via fd00::2",
    ]
    assert [line for line in table(pod, "main") + table(pod, "main", 6) if "dev net1" in line] == []
    call(node, "DEL", conf(*ips), pod).ok()
    assert rules(pod) + rules(pod, 6) == []


def test_routes_keep_what_they_have(node: Node) -> None:
    """A gateway of the other family, a type of service, a preference."""
    pod = prepared(node, "192.168.7.0/24 via inet6 fe80::7 dev net1", "192.168.8.0/24 tos 0x10 via 192.168.1.8")
    pod.run("ip", "addr", "add", "fd00::10/64", "dev", "net1", "nodad")
    pod.run("ip", "-6", "route", "add", "fd08::/64", "dev", "net1", "pref", "high")
    call(node, "ADD", conf(*ONE), pod).ok()
    assert {"192.168.7.0/24 via inet6 fe80::7 dev net1", "192.168.8.0/24 tos 0x10 via 192.168.1.8 dev net1"} <= set(
        table(pod, 100)
    )
    assert "fd08::/64 dev net1 metric 1024 pref high" in table(pod, 100, 6)
    assert [line for line in table(pod, "main") + table(pod, "main", 6) if "dev net1" in line] == []


def test_a_table_that_is_given(node: Node) -> None:
    pod = prepared(node)
    before = table(pod, "main")
    wanted = conf(*ONE, ip("192.168.1.210/24"), table=5000, gateways=["count", "for", "nothing"], addSourceHints=True)
    call(node, "ADD", wanted, pod).ok()
    assert rules(pod) == ["32764: from 192.168.1.210 lookup 5000", "32765: from 192.168.1.209 lookup 5000"]
    assert table(pod, "main") == before
    pod.run("ip", "rule", "add", "from", "192.168.1.209", "table", "7")
    call(node, "DEL", wanted, pod).ok()
    assert rules(pod) == ["32763: from 192.168.1.209 lookup 7"]


@pytest.mark.parametrize("number", [0, 253, 254])
def test_tables_with_names(node: Node, number: int) -> None:
    """`ip rule` calls them default and main; of 0 the kernel makes a table of its choice."""
    pod = prepared(node)
    before = table(pod, "main")
    wanted = conf(*ONE, table=number)
    call(node, "ADD", wanted, pod).ok()
    assert len(rules(pod)) == 1
    call(node, "CHECK", wanted, pod).ok()
    call(node, "DEL", wanted, pod).ok()
    assert (rules(pod), table(pod, "main")) == ([], before)


def test_a_table_of_a_rule_is_not_free(node: Node, tmp_path: pathlib.Path) -> None:
    """Also where the node has a name for it."""
    pod = prepared(node)
    pod.run("ip", "rule", "add", "from", "203.0.113.1", "table", "100")
    (tmp_path / "rt_tables").write_text("254 main\n100 theirs\n101 others\n")
    real = f'if [ -d /etc/iproute2 ]; then mount --bind {tmp_path}/rt_tables /etc/iproute2/rt_tables; fi; exec $real "$@"'
    inner = tmp_path / "inner"
    inner.write_text(f"#!/bin/sh\nreal=/usr/sbin/ip\n{real}\n")
    inner.chmod(0o755)
    env = tools(tmp_path / "tools", ip=f'exec unshare --mount {inner} "$@"')
    call(node, "ADD", conf(*ONE), pod, env=env).ok()
    assert rules(pod)[0] == "32764: from 192.168.1.209 lookup 101"
    call(node, "CHECK", conf(*ONE), pod, env=env).ok()
    call(node, "DEL", conf(*ONE), pod, env=env).ok()
    assert rules(pod) == ["32765: from 203.0.113.1 lookup 100"]


@pytest.mark.parametrize(
    ("gateways", "default"),
    [(["192.168.1.254"], "192.168.1.254"), (["fd00::1", "192.168.1.253"], "192.168.1.253"), ([], "192.168.1.1")],
)
def test_gateways(node: Node, gateways: list[str], default: str) -> None:
    pod = prepared(node)
    call(node, "ADD", conf(*ONE, gateways=gateways), pod).ok()
    assert f"default via {default} dev net1" in table(pod, 100)


def test_without_any_gateway(node: Node) -> None:
    pod = prepared(node)
    call(node, "ADD", conf(ip("192.168.1.209/24")), pod).ok()
    assert len(table(pod, 100)) == 2


def test_a_default_route_that_is_there_already(node: Node) -> None:
    pod = prepared(node)
    pod.run("ip", "route", "add", "default", "via", "192.168.1.1", "dev", "net1", "metric", "50")
    call(node, "ADD", conf(*ONE), pod).ok()
    assert [line for line in table(pod, 100) if line.startswith("default")] == ["default via 192.168.1.1 dev net1"]
    assert table(pod, "main") == ["10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.2", "default via 10.0.0.1 dev eth0"]


def test_source_hints(node: Node) -> None:
    pod = prepared(node)
    pod.run("ip", "addr", "add", "fd00::10/64", "dev", "net1", "nodad")
    ips = (ip("192.168.1.209/24"), ip("fd00::10/64"))
    call(node, "ADD", conf(*ips, addSourceHints=True, gateways=["192.168.1.254", "fd00::1"]), pod).ok()
    assert [line for line in table(pod, "main") if "net1" in line] == ["192.168.1.0/24 dev net1 scope link src 192.168.1.209"]
    assert [line for line in table(pod, "main", 6) if "net1" in line] == [
        "fd00::/64 dev net1 src fd00::10 metric 1024 pref medium"
    ]
    assert "default via 192.168.1.254 dev net1" in table(pod, 100)


def test_a_hint_for_an_address_that_the_link_lacks(node: Node) -> None:
    """It is left out; the others are there."""
    pod = prepared(node)
    ips = (*ONE, {"address": "192.168.77.9/24"})
    call(node, "ADD", conf(*ips, addSourceHints=True), pod).ok()
    assert [line for line in table(pod, "main") if "net1" in line] == ["192.168.1.0/24 dev net1 scope link src 192.168.1.209"]
    assert len(rules(pod)) == 2


def test_a_failure_behind_the_hints_changes_nothing(node: Node, tmp_path: pathlib.Path) -> None:
    pod = prepared(node)
    pod.run("ip", "addr", "add", "fd00::10/64", "dev", "net1", "nodad")
    before = [rules(pod), rules(pod, 6), table(pod, "all"), table(pod, "all", 6)]
    # The lines before the first removal from the main table are done, and then it fails.
    script = r"""
    case "$*" in *-batch*) ;; *) exec $real "$@";; esac
    cat > $here/all
    if grep -q "^route del 192" $here/all && mkdir $here/once; then
        sed "/^route del/,\$d" $here/all | $real "$@"
        printf "no\nCommand failed -:%s\n" $(grep -n -m1 "^route del" $here/all | cut -d: -f1) >&2
        exit 1
    fi
    exec $real "$@" < $here/all"""
    env = tools(tmp_path / "tools", ip=script)
    ips = (*ONE, ip("fd00::10/64", "fd00::1"))
    error = call(node, "ADD", conf(*ips, addSourceHints=True), pod, env=env).error()
    assert error["msg"].startswith("Failed to delete route")
    assert [rules(pod), rules(pod, 6), table(pod, "all"), table(pod, "all", 6)] == before


def test_errors_change_nothing(node: Node) -> None:
    pod = prepared(node)
    assert refused(node, conf(), pod) == "This plugin must be called as chained plugin"
    prev = {"cniVersion": "1.0.0", "interfaces": [{"name": "net1"}]}
    assert refused(node, conf(prevResult=prev), pod) == "No IP addresses supplied on interface: net1"
    assert refused(node, conf(*ONE, gateways=["x"]), pod) == "invalid static gateway IP address: x"
    two = ["192.168.1.1", "192.168.1.254"]
    assert (
        refused(node, conf(*ONE, gateways=two), pod)
        == "gateways list contains multiple IPv4 addresses: 192.168.1.1 and 192.168.1.254"
    )
    assert refused(node, conf(*ONE, gateways=[*two, "fd00::1"]), pod).startswith(
        "gateways list cannot contain more than 2 entries"
    )
    assert refused(node, conf(*ONE, gateways=["198.51.100.1"]), pod).startswith("Failed to add default route to 198.51.100.1")
    assert refused(node, conf(*ONE, table="x"), pod).startswith("failed to parse network configuration")
    assert refused(node, conf(*ONE, table=-1), pod) == "invalid table -1"
    pod.run("ip", "link", "del", "net1")
    assert refused(node, conf(*ONE), pod) == "Cannot find network interface net1: Link not found"
    call(node, "DEL", conf(*ONE), pod).ok()


def test_addresses_of_another_link(node: Node) -> None:
    """Nothing is this link's, so nothing happens to its routes."""
    pod = prepared(node)
    before = table(pod, "main")
    wanted = conf(*ONE)
    wanted["prevResult"]["interfaces"][0]["name"] = "eth0"
    call(node, "ADD", wanted, pod).ok()
    assert (rules(pod), table(pod, "main")) == ([], before)


@pytest.mark.parametrize("netns", ["", "/run/netns/none"])
def test_del_without_a_namespace(node: Node, netns: str) -> None:
    call(node, "DEL", conf(*ONE), netns).ok()
    assert not pathlib.Path("/run/netns/none").exists()


def test_rules_of_a_link_that_is_gone(node: Node) -> None:
    """prevResult knows its addresses."""
    pod = prepared(node)
    call(node, "ADD", conf(*ONE), pod).ok()
    pod.run("ip", "link", "del", "net1")
    call(node, "DEL", conf(*ONE), pod).ok()
    assert rules(pod) == []


@pytest.mark.skipif(not (GO / "sbr").exists(), reason="containernetworking-plugins is not installed")
@pytest.mark.parametrize(("adder", "remover"), [(GO, BIN), (BIN, GO)])
def test_beside_the_go_plugin(node: Node, adder: pathlib.Path, remover: pathlib.Path) -> None:
    """The same rules and tables, and the other one's DEL removes them."""
    found: list[Any] = []
    for suite, other in ((adder, remover), (remover, adder)):
        pod = prepared(node)
        wanted = conf(*ONE)
        container = f"cid{len(found)}"
        call(node, "ADD", wanted, pod, bin_dir=suite, container=container).ok()
        found.append((rules(pod), table(pod, "main"), table(pod, 100)))
        call(node, "CHECK", wanted, pod, bin_dir=other, container=container).ok()
        call(node, "DEL", wanted, pod, bin_dir=other, container=container).ok()
        assert rules(pod) == []
    assert found[0] == found[1]
