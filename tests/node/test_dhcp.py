"""dhcp and its daemon, with dnsmasq as the server (IPAM sheet 4)."""

import concurrent.futures
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ipcni import install
from ipcni.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE
from tests.dhcp import Daemon, Server, bridge, clients, conf, running, served, wait_for, wired
from tests.lab import BIN, ENTRY_PATH, Node, Pod, run, sh
from tests.remains import remains, tools


@pytest.fixture
def server(node: Node) -> Iterator[Server]:
    with served(node, "--dhcp-option=3,192.168.1.1") as each:
        yield each


@pytest.fixture
def daemon(node: Node) -> Iterator[Daemon]:
    with running(node, "-timeout", "2s", "-resendtimeout", "8s", "-resendmax", "1s") as each:
        yield each


def held(node: Node) -> list[str]:
    """The lease files."""
    folder = node.folder / "run" / "dhcp"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def routes(pod: Pod) -> list[tuple[str, str]]:
    return [(each["dst"], each.get("gateway", "")) for each in pod.ip("route")]


# -- leases


def test_a_lease_and_its_release(node: Node, server: Server, daemon: Daemon) -> None:
    """The whole way with bridge: the pod gets what the server says, and the server gets it back."""
    pod = node.pod()
    result = node.call("ADD", bridge(daemon), pod).ok()
    assert [(ip["address"], ip["gateway"], ip["interface"]) for ip in result["ips"]] == [("192.168.1.5/24", "192.168.1.1", 2)]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "192.168.1.1"}]
    server.settled({"192.168.1.5": "cid1/lan/eth0"})
    assert ("default", "192.168.1.1") in routes(pod)
    pod.run("ping", "-c", "1", "-W", "2", "192.168.1.1")
    assert held(node) == ["lan/cid1:eth0"]
    node.call("CHECK", {**bridge(daemon), "prevResult": result}, pod).ok()
    assert server.log.count("DHCPDISCOVER") == 1
    node.call("DEL", {**bridge(daemon), "prevResult": result}, pod).ok()
    server.settled({})
    assert "DHCPRELEASE" in server.log
    assert (held(node), clients(pod), remains(node)) == ([], [], {})
    node.call("DEL", bridge(daemon), pod).ok()
    node.call("DEL", bridge(daemon)).ok()


def test_macvlan_with_the_servers_wire_as_its_master(node: Node, server: Server, daemon: Daemon) -> None:
    """As most do who have macvlan: the pod is one more machine on the network of the node's own link."""
    node.run("ip", "link", "add", "mst", "type", "veth", "peer", "name", "port")
    node.run("ip", "link", "set", "mst", "up")
    node.run("ip", "link", "set", "port", "master", "lan", "up")
    config = {**conf(daemon), "type": "macvlan", "master": "mst"}
    pod = node.pod()
    result = node.call("ADD", config, pod).ok()
    assert [(ip["address"], ip["gateway"], ip["interface"]) for ip in result["ips"]] == [("192.168.1.5/24", "192.168.1.1", 0)]
    server.settled({"192.168.1.5": "cid1/lan/eth0"})
    pod.run("ping", "-c", "1", "-W", "2", "192.168.1.1")
    node.call("CHECK", {**config, "prevResult": result}, pod).ok()
    node.call("DEL", {**config, "prevResult": result}, pod).ok()
    server.settled({})
    assert (held(node), clients(pod), [link["ifname"] for link in pod.ip("link")]) == ([], [], ["lo"])


@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "0.4.0", "1.0.0"])
def test_answers_in_every_layout(node: Node, server: Server, daemon: Daemon, version: str) -> None:
    pod = wired(node)
    result = node.call("ADD", {**conf(daemon), "cniVersion": version}, pod).ok()
    ip = result["ip4"]["ip"] if version == "0.1.0" else result["ips"][0]["address"]
    assert ip == "192.168.1.5/24"
    node.call("DEL", {**conf(daemon), "cniVersion": version}, pod).ok()


def test_the_plugin_alone(node: Node, server: Server, daemon: Daemon) -> None:
    """It sets the link up, and gives it no address; what it releases is released from the address all the same."""
    pod = wired(node)
    assert node.call("ADD", conf(daemon), pod).ok() == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "192.168.1.5/24", "gateway": "192.168.1.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "192.168.1.1"}],
    }
    (link,) = pod.ip("addr", "show", "dev", "eth0")
    assert "UP" in link["flags"]
    assert [each["family"] for each in link["addr_info"]] in ([], ["inet6"])
    (record,) = node.journal()
    assert [command["argv"] for command in record["commands"]] == [["DHCP.Allocate", daemon.socket]]
    node.call("DEL", conf(daemon), pod).ok()
    server.settled({})
    assert not [each for each in pod.ip("addr", "show", "dev", "eth0")[0]["addr_info"] if each["family"] == "inet"]


def test_many_dels(node: Node, server: Server, daemon: Daemon) -> None:
    pod = wired(node)
    node.call("ADD", conf(daemon), pod).ok()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for answer in pool.map(lambda _: node.call("DEL", conf(daemon), pod), range(3)):
            answer.ok()
    node.call("DEL", conf(daemon), pod).ok()
    server.settled({})


def test_two_interfaces(node: Node, server: Server, daemon: Daemon) -> None:
    pod = wired(node)
    wired(node, "net1", pod)
    for number, ifname in ((5, "eth0"), (6, "net1")):
        result = node.call("ADD", conf(daemon), pod, ifname=ifname).ok()
        assert result["ips"][0]["address"] == f"192.168.1.{number}/24"
    node.call("DEL", conf(daemon), pod).ok()
    server.settled({"192.168.1.6": "cid1/lan/net1"})


def test_a_lease_that_is_known_costs_no_traffic(node: Node, server: Server, daemon: Daemon) -> None:
    """A second ADD, also while the first one is still at it."""
    pod = wired(node)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: node.call("ADD", conf(daemon), pod).ok(), range(3)))
    assert answers[0] == answers[1] == answers[2]
    assert server.log.count("DHCPDISCOVER") == 1
    wait_for(lambda: len(clients(pod)) == 1)  # the client's script, too, runs for a moment


def test_an_add_that_fails_later_gives_the_lease_back(node: Node, server: Server, daemon: Daemon, tmp_path: pathlib.Path) -> None:
    """Masquerading comes last, and cannot be."""
    pod = node.pod()
    env = tools(tmp_path / "tools", iptables="echo no >&2; exit 3", iptables_restore="echo no >&2; exit 3")
    answer = node.call("ADD", {**bridge(daemon), "ipMasq": True, "ipMasqBackend": "iptables"}, pod, env=env)
    assert answer.error()["msg"]
    assert "DHCPACK" in server.log
    server.settled({})
    assert (held(node), clients(pod), remains(node)) == ([], [], {})


def test_gc_releases_what_is_not_valid(node: Node, server: Server, daemon: Daemon) -> None:
    pods = [node.pod() for _ in range(3)]
    for number, pod in enumerate(pods):
        name = "other" if number == 2 else "lan"
        node.call("ADD", {**bridge(daemon), "name": name}, pod, container=f"cid{number}").ok()
    valid = [{"containerID": "cid0", "ifname": "eth0"}]
    node.call("GC", bridge(daemon)).ok()
    assert len(server.leases) == 3, "no list, nothing removed"
    node.call("GC", {**bridge(daemon), "cni.dev/valid-attachments": valid}).ok()
    wait_for(lambda: sorted(server.leases.values()) == ["cid0/lan/eth0", "cid2/other/eth0"])
    assert held(node) == ["lan/cid0:eth0", "other/cid2:eth0"]
    wait_for(lambda: [len(clients(pod)) for pod in pods] == [1, 0, 1])


# -- options


def test_options(node: Node, daemon: Daemon) -> None:
    """What is provided is sent, from CNI_ARGS too; what is requested is asked for."""
    with served(node) as server:
        keys: dict[str, Any] = {
            "provide": [
                {"option": "host-name", "value": "unseen", "fromArg": "K8S_POD_NAME"},
                {"option": "60", "value": "vend"},
                {"option": "user-class", "value": "it's"},
                {"option": "dhcp-client-identifier", "fromArg": "NOT_THERE"},
            ],
            "request": [{"option": "15"}, {"option": "121"}, {"option": "15"}],
        }
        node.call("ADD", conf(daemon, **keys), wired(node), args="IgnoreUnknown=1;K8S_POD_NAME=pod1").ok()
        assert "requested options: 1:netmask, 3:router, 15:domain-name, 121:classless-static-route\n" in server.log
        assert "client provides name: pod1" in server.log
        assert "vendor class: vend" in server.log
        assert "user class: it's" in server.log
        assert "udhcp" not in server.log


def test_another_client_identifier(node: Node, server: Server, daemon: Daemon) -> None:
    pod = wired(node)
    given = conf(daemon, provide=[{"option": "61", "value": "\x00me"}, {"option": "61", "value": "_me"}])
    if "\x00" in json.dumps(given):
        given["ipam"]["provide"].pop(0)
    given["ipam"]["provide"] = [{"option": "dhcp-client-identifier", "value": "_me"}]
    node.call("ADD", given, pod).ok()
    assert list(server.leases.values()) == ["me"]


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        ([{"skipDefault": True}], "1:netmask, 3:router, 6:dns-server, 15:domain-name"),
        ([{"option": "subnet-mask", "skipDefault": True}], "1:netmask"),
    ],
)
def test_requests(node: Node, server: Server, daemon: Daemon, request_: list[dict[str, Any]], asked: str) -> None:
    node.call("ADD", conf(daemon, request=request_), wired(node)).ok()
    assert f"requested options: {asked}\n" in server.log


def test_classless_routes_are_all_there_is(node: Node, daemon: Daemon) -> None:
    """Also the router and the static routes are left out then (RFC 3442)."""
    options = (
        "--dhcp-option=3,192.168.1.1",
        "--dhcp-option=33,10.0.0.0,10.1.2.3",
        "--dhcp-option=121,10.0.0.0/8,192.168.1.9,172.16.0.0/16,0.0.0.0",
    )
    pod = node.pod()
    with served(node, *options):
        asking = bridge(daemon, request=[{"option": "121"}, {"option": "33"}], priority=50)
        result = node.call("ADD", asking, pod).ok()
    assert result["ips"][0]["gateway"] == "192.168.1.1"
    assert result["routes"] == [
        {"dst": "10.0.0.0/8", "gw": "192.168.1.9", "priority": 50},
        {"dst": "172.16.0.0/16", "gw": "0.0.0.0", "priority": 50, "scope": 253},
    ]
    assert ("10.0.0.0/8", "192.168.1.9") in routes(pod)
    assert ("172.16.0.0/16", "") in routes(pod)


def test_static_routes_by_class(node: Node, daemon: Daemon) -> None:
    static = "--dhcp-option=33,10.0.0.0,10.1.2.3,192.168.1.0,192.168.2.3,172.16.0.0,10.1.2.4"
    with served(node, static, "--dhcp-option=3,192.168.1.7"):
        result = node.call("ADD", conf(daemon, request=[{"option": "33"}]), wired(node)).ok()
    assert result["routes"] == [
        {"dst": "10.0.0.0/8", "gw": "10.1.2.3"},
        {"dst": "192.168.1.0/24", "gw": "192.168.2.3"},
        {"dst": "172.16.0.0/16", "gw": "10.1.2.4"},
        {"dst": "0.0.0.0/0", "gw": "192.168.1.7"},
    ]


def test_no_router(node: Node, daemon: Daemon) -> None:
    with served(node, "--dhcp-option=3"):
        result = node.call("ADD", conf(daemon), wired(node)).ok()
    assert result["ips"] == [{"address": "192.168.1.5/24"}]
    assert "routes" not in result


def test_no_subnet_mask(node: Node, daemon: Daemon) -> None:
    with served(node, "--dhcp-option=1") as server:
        pod = wired(node)
        asking = conf(daemon, request=[{"option": "15", "skipDefault": True}])
        error = node.call("ADD", asking, pod).error()
        assert error["msg"] == "error calling DHCP.Allocate: DHCP option Subnet Mask not found in DHCPACK"
        assert (held(node), clients(pod)) == ([], [])
        assert server.log.count("DHCPACK") == 1


# -- errors


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"provide": [{"option": "bogus", "value": "x"}]},
            'Can not parse option "bogus": Can not parse option: strconv.ParseUint: parsing "bogus": invalid syntax',
        ),
        (
            {"request": [{"option": "256"}]},
            'Can not parse option "256": Can not parse option: strconv.ParseUint: parsing "256": value out of range',
        ),
        ({"provide": [{"option": "60", "value": "x" * 256}]}, f'value too long for option "60": "{"x" * 256}"'),
    ],
)
def test_options_that_are_none(node: Node, daemon: Daemon, keys: dict[str, Any], message: str) -> None:
    error = node.call("ADD", conf(daemon, **keys), node.pod()).error()
    assert (error["code"], error["msg"]) == (999, f"error calling DHCP.Allocate: {message}")


def test_no_link_and_no_namespace(node: Node, daemon: Daemon) -> None:
    pod = node.pod()
    assert (
        node.call("ADD", conf(daemon), pod).error()["msg"]
        == 'error calling DHCP.Allocate: error looking up "eth0": Link not found'
    )
    gone = 'failed to Statfs "/run/netns/nowhere": no such file or directory'
    assert node.call("ADD", conf(daemon), "/run/netns/nowhere").error()["msg"] == f"error calling DHCP.Allocate: {gone}"
    assert held(node) == []


def test_no_ipam(node: Node) -> None:
    for verb in ("ADD", "CHECK"):
        error = node.call(verb, {"cniVersion": "1.0.0", "name": "lan", "type": "dhcp"}, node.pod()).error()
        assert error["msg"] == "IPAM config missing 'ipam' key"


def test_no_server(node: Node, daemon: Daemon) -> None:
    Server(node)
    pod = wired(node)
    error = node.call("ADD", conf(daemon), pod).error()
    assert error["msg"] == "error calling DHCP.Allocate: no more tries"
    assert (held(node), clients(pod)) == ([], [])
    node.call("DEL", conf(daemon), pod).ok()


def test_no_address_left(node: Node, daemon: Daemon) -> None:
    with served(node, pool="192.168.1.5,192.168.1.5,255.255.255.0,1h") as server:
        first, second = wired(node), wired(node)
        node.call("ADD", conf(daemon), first).ok()
        error = node.call("ADD", conf(daemon), second, container="cid2").error()
        assert error["msg"] == "error calling DHCP.Allocate: no more tries"
        for container, pod in (("cid1", first), ("cid2", second)):
            node.call("DEL", conf(daemon), pod, container=container).ok()
        server.settled({})


def test_no_daemon(node: Node) -> None:
    path = str(node.folder / "nowhere.sock")
    pod = wired_without_server(node)
    text = f"error dialing DHCP daemon: dial unix {path}: connect: no such file or directory"
    for verb in ("ADD", "CHECK", "DEL"):
        error = node.call(verb, conf(path), pod).error()
        assert (error["code"], error["msg"]) == (999, text)
        assert "dhcp daemon" in error["details"]
    error = node.call("STATUS", conf(path)).error()
    assert (error["code"], error["msg"]) == (LIMITED_CONNECTIVITY, text)
    node.call("DEL", conf(path)).ok()
    node.call("DEL", conf(path), "/run/netns/nowhere").ok()


def wired_without_server(node: Node) -> Pod:
    pod = node.pod()
    sh("ip", "-n", pod.name, "link", "add", "eth0", "type", "bridge")
    return pod


def test_somebody_else_listens(node: Node) -> None:
    path = node.folder / "other.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(node.call, "ADD", conf(str(path)), node.pod())
        connection, _ = listener.accept()
        listener.close()
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
        connection.close()
        error = answer.result().error()
    assert error["msg"].startswith("error calling DHCP.Allocate: unexpected HTTP response: HTTP/1.1 404 Not Found")


@pytest.mark.parametrize("garbage", [b"\0", b"GET / HTTP/1.0\n\n", b"CONNECT /_goRPC_ HTTP/1.0\n\n\xff\xff\xff", b"x" * 10000])
def test_garbage_does_not_end_the_daemon(node: Node, daemon: Daemon, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(daemon.socket)
        connection.sendall(garbage)
    node.call("STATUS", conf(daemon)).ok()


def test_names_that_would_lead_elsewhere(node: Node, daemon: Daemon) -> None:
    """Who may use the socket may not write files."""
    from ipcni.dhcp import rpc
    from ipcni.errors import CniError

    stdin = json.dumps(conf(daemon)).encode()
    for args in (
        rpc.Args("../../up", "/run/netns/x", "eth0", stdin=stdin),
        rpc.Args("cid", "/run/netns/x", "../eth0", stdin=stdin),
        rpc.Args("cid", "/run/netns/x", "eth0", stdin=stdin.replace(b'"lan"', b'"../lan"')),
        rpc.Args("cid", "/run/netns/x", "eth0", stdin=b"{"),
    ):
        with pytest.raises(CniError):
            rpc.call(daemon.socket, "Allocate", args)
    with pytest.raises(CniError, match=r"error calling DHCP\.Nope: rpc: can't find method DHCP\.Nope"):
        rpc.call(daemon.socket, "Nope", rpc.Args())


def test_status(node: Node, tmp_path: pathlib.Path) -> None:
    with running(node) as each:
        node.call("STATUS", conf(each)).ok()
    poor = tmp_path / "poor"
    poor.mkdir()
    for tool in ("ip", "nsenter", "setpriv", "sh", "dirname", "readlink"):
        (poor / tool).symlink_to(run("which", tool).stdout.strip())
    # Our own PATH cannot hide the standard folders from the daemon: a mount does.
    script = f'for at in /usr/sbin/udhcpc /usr/bin/busybox; do [ ! -e $at ] || mount --bind {poor}/none $at; done; exec "$0" "$@"'
    (poor / "none").write_text("")
    path = str(node.folder / "poor.sock")
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, str(BIN / "dhcp"), "daemon", "-socketpath", path], env=node.env
    )
    try:
        wait_for(lambda: os.path.exists(path))
        error = node.call("STATUS", conf(path)).error()
        assert (error["code"], error["msg"]) == (NOT_AVAILABLE, "error calling DHCP.Status: this node has no udhcpc")
    finally:
        process.terminate()
        process.wait()


# -- keeping


def test_a_lease_is_renewed(node: Node, daemon: Daemon) -> None:
    """At T1 (half of two minutes is too long for a test: the server says 3 s)."""
    with served(node, "--dhcp-option=58,3", "--dhcp-option=59,100", pool="192.168.1.5,192.168.1.50,255.255.255.0,2m") as server:
        pod = node.pod()
        node.call("ADD", bridge(daemon), pod).ok()
        before = json.loads((node.folder / "run/dhcp/lan/cid1:eth0").read_text())["terms"]
        wait_for(lambda: server.log.count("DHCPACK") >= 2)
        assert server.log.count("DHCPDISCOVER") == 1
        wait_for(lambda: json.loads((node.folder / "run/dhcp/lan/cid1:eth0").read_text())["terms"]["end"] > before["end"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_leases_survive_the_daemon(node: Node, server: Server, daemon: Daemon, number: int) -> None:
    """The next daemon asks for the same address, and releases it in the end."""
    pod = node.pod()
    result = node.call("ADD", bridge(daemon), pod).ok()
    assert daemon.stop(number) == (-number if number == signal.SIGKILL else 0)
    wait_for(lambda: not clients(pod))
    assert os.path.exists(daemon.socket) == (number == signal.SIGKILL)
    assert list(server.leases) == ["192.168.1.5"]
    daemon.start()
    wait_for(lambda: server.log.count("DHCPACK") == 2)
    assert "-r 192.168.1.5" in clients(pod)[0]
    node.call("CHECK", {**bridge(daemon), "prevResult": result}, pod).ok()
    assert [each["local"] for each in pod.ip("-4", "addr", "show", "dev", "eth0")[0]["addr_info"]] == ["192.168.1.5"]
    node.call("DEL", bridge(daemon), pod).ok()
    server.settled({})
    assert held(node) == []


@pytest.mark.parametrize("number", ["another", "same"])
def test_a_pod_that_went_while_there_was_no_daemon(node: Node, server: Server, daemon: Daemon, number: str) -> None:
    """Another namespace has its path, and maybe its number: the kernel gives those of namespaces that went again."""
    pod = node.pod()
    node.call("ADD", bridge(daemon), pod).ok()
    daemon.stop()
    pod.delete()
    sh("ip", "netns", "add", pod.name)
    there = os.stat(pod.path)
    file = node.folder / "run" / "dhcp" / "lan" / "cid1:eth0"
    kept = json.loads(file.read_text())
    kept["space"] = f"{there.st_dev}:{there.st_ino + (number == 'another')}"
    file.write_text(json.dumps(kept))
    daemon.start()
    wait_for(lambda: not held(node))
    assert clients(pod) == []


def test_a_namespace_that_goes_takes_its_client_along(node: Node, server: Server, daemon: Daemon) -> None:
    """A client that stayed would keep the namespace, and with it the pod's link."""
    pod = node.pod()
    node.call("ADD", bridge(daemon), pod).ok()
    pod.delete()
    wait_for(lambda: not held(node))
    wait_for(lambda: not [link for link in node.links() if link.startswith("veth")])
    assert "cid1/lan/eth0: the namespace is gone" in daemon.said
    node.call("DEL", bridge(daemon), pod.path).ok()


def test_an_add_in_the_namespace_that_came_after(node: Node, server: Server, daemon: Daemon) -> None:
    """It has the old one's path, and is asked for at once, before the daemon has noticed."""
    pod = wired(node)
    node.call("ADD", conf(daemon), pod).ok()
    pod.delete()
    sh("ip", "netns", "add", pod.name)
    node.pods.append(pod)
    wired(node, pod=pod)
    node.call("ADD", conf(daemon), pod).ok()
    wait_for(lambda: clients(pod))
    assert "cid1/lan/eth0: the namespace is gone" in daemon.said
    assert held(node) == ["lan/cid1:eth0"]
    node.call("DEL", conf(daemon), pod).ok()


def test_check_of_a_link_that_is_gone(node: Node, server: Server, daemon: Daemon) -> None:
    pod = wired(node)
    node.call("ADD", conf(daemon), pod).ok()
    sh("ip", "-n", pod.name, "link", "del", "eth0")
    node.call("CHECK", conf(daemon), pod).ok()
    wait_for(lambda: not held(node))
    assert "Link not found" in node.call("CHECK", conf(daemon), pod).error()["msg"]
    node.call("DEL", conf(daemon), pod).ok()


def test_check_gets_a_lease_where_there_is_none(node: Node, server: Server, daemon: Daemon) -> None:
    pod = wired(node)
    node.call("CHECK", conf(daemon), pod).ok()
    assert list(server.leases) == ["192.168.1.5"]


def test_a_client_that_is_killed_comes_again(node: Node, server: Server, daemon: Daemon) -> None:
    pod = node.pod()
    node.call("ADD", bridge(daemon), pod).ok()
    (number,) = sh("ip", "netns", "pids", pod.name).split()
    os.kill(int(number), signal.SIGKILL)
    wait_for(lambda: server.log.count("DHCPACK") == 2)
    node.call("DEL", bridge(daemon), pod).ok()
    server.settled({})


def test_a_lease_that_ends_takes_the_link_down(node: Node, server: Server, daemon: Daemon) -> None:
    """With a file that says so, as a lease takes two minutes at least."""
    pod = node.pod()
    node.call("ADD", bridge(daemon), pod).ok()
    daemon.stop()
    server.stop()
    path = node.folder / "run/dhcp/lan/cid1:eth0"
    kept = json.loads(path.read_text())
    kept["terms"]["end"] = 1
    path.write_text(json.dumps(kept))
    daemon.start()
    wait_for(lambda: not held(node), 40)
    wait_for(lambda: "UP" not in pod.ip("link", "show", "dev", "eth0")[0]["flags"])
    assert clients(pod) == []
    assert "the lease of 192.168.1.5/24 has ended" in daemon.said


def test_a_del_ends_an_add_that_waits(node: Node, daemon: Daemon) -> None:
    Server(node)
    pod = wired(node)
    waiting = node.start("ADD", conf(daemon), pod)
    wait_for(lambda: clients(pod))
    started = time.monotonic()
    node.call("DEL", conf(daemon), pod).ok()
    assert node.wait(waiting).error()["msg"] == "error calling DHCP.Allocate: released meanwhile"
    assert time.monotonic() - started < 4
    assert (held(node), clients(pod)) == ([], [])


# -- the command line


def daemon_run(*argv: str, node: Node, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run(str(BIN / "dhcp"), "daemon", *argv, check=False, env={**node.env, **(env or {})}, timeout=20)


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (("-pidfile", "rel"), 1, 'Error writing pidfile "rel": path not absolute'),
        (("-nosuch",), 2, "flag provided but not defined: -nosuch"),
        (("--timeout=soon",), 2, 'invalid value "soon" for flag -timeout: parse error'),
        (("-broadcast=perhaps",), 2, 'invalid boolean value "perhaps" for -broadcast: parse error'),
        (("-socketpath",), 2, "flag needs an argument: -socketpath"),
        (("--help",), 0, "Usage of dhcp daemon:"),
        (("-socketpath", "/proc/nowhere/dhcp.sock"), 1, "Error getting listener: listen unix /proc/nowhere/dhcp.sock: bind:"),
    ],
)
def test_a_daemon_that_does_not_start(node: Node, argv: tuple[str, ...], status: int, message: str) -> None:
    done = daemon_run(*argv, node=node)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(message)
    assert status != 1 or len(done.stderr.splitlines()) == 1


def test_a_signal_that_another_thread_takes_ends_the_daemon(node: Node) -> None:
    """The kernel may hand it to any of them, and the one that waits for calls does not notice."""
    with running(node) as each:
        wait_for(lambda: len(os.listdir(f"/proc/{each.process.pid}/task")) > 1)
        first, *others = sorted(int(number) for number in os.listdir(f"/proc/{each.process.pid}/task"))
        assert first == each.process.pid
        assert ctypes.CDLL(None).tgkill(first, others[0], signal.SIGTERM) == 0
        assert each.process.wait(5) == 0


def test_the_socket_is_taken(node: Node, daemon: Daemon, tmp_path: pathlib.Path) -> None:
    done = daemon_run("-socketpath", daemon.socket, node=node, env={"IPCNI_RUN_DIR": str(tmp_path / "other")})
    assert (done.returncode, done.stderr) == (
        1,
        f"Error getting listener: listen unix {daemon.socket}: bind: address already in use\n",
    )
    node.call("STATUS", conf(daemon)).ok()


def test_a_socket_in_the_folder_that_it_is_started_in(node: Node) -> None:
    daemon = subprocess.Popen([BIN / "dhcp", "daemon", "-socketpath", "dhcp.sock"], env=node.env, cwd=node.folder)
    wait_for((node.folder / "dhcp.sock").exists)
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert not (node.folder / "dhcp.sock").exists()


def test_pidfile_and_hostprefix(node: Node) -> None:
    """As in a container that has the node at /host."""
    host, pidfile = node.folder / "host", node.folder / "pid"
    (host / "run").mkdir(parents=True)
    (host / "run" / "netns").symlink_to("/run/netns")
    with served(node) as server:
        path = "/cni/dhcp.sock"
        daemon = subprocess.Popen(
            [BIN / "dhcp", "daemon", "-hostprefix", str(host), "-pidfile", str(pidfile), "-socketpath", path, "-broadcast"],
            env=node.env,
        )
        made = host / "cni" / "dhcp.sock"
        wait_for(made.exists)
        assert (pidfile.read_text(), pidfile.stat().st_mode & 0o777) == (str(daemon.pid), 0o644)
        assert (made.stat().st_mode & 0o777, made.parent.stat().st_mode & 0o777) == (0o755, 0o700)
        node.call("ADD", conf(str(made)), wired(node)).ok()
        assert list(server.leases) == ["192.168.1.5"]
        daemon.terminate()
        assert daemon.wait(10) == 0
        assert not made.exists()
        assert not pidfile.exists()


def test_socket_activation(node: Node) -> None:
    """systemd-socket-activate starts it with the first call."""
    path = node.folder / "activated.sock"
    command = [
        "systemd-socket-activate",
        f"--listen={path}",
        *(f"--setenv={key}" for key in node.env),
        str(BIN / "dhcp"),
        "daemon",
    ]
    process = subprocess.Popen(command, env=node.env, stderr=subprocess.DEVNULL)
    try:
        wait_for(path.exists)
        node.call("STATUS", conf(str(path))).ok()
    finally:
        process.terminate()
        assert process.wait(10) == 0
    assert path.exists(), "it is systemd's"


def test_too_many_sockets(node: Node) -> None:
    script = f"LISTEN_PID=$$ LISTEN_FDS=2 exec {BIN / 'dhcp'} daemon"
    done = run("sh", "-c", script, check=False, env=node.env)
    assert (done.returncode, done.stderr) == (1, "Error getting listener: Too many (2) FDs passed through socket activation\n")


def test_the_installed_daemon_is_no_call_for_the_server_of_plugins(tmp_path: pathlib.Path) -> None:
    """`ipcni serve` would answer as the plugin."""
    if install.install(str(tmp_path / "bin"), wanted=("dhcp",))[-1].what != "installed":
        pytest.skip("no C compiler")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "serve"))
        listener.listen()
        listener.setblocking(False)
        env = {"PATH": ENTRY_PATH, "IPCNI_SOCKET": str(tmp_path / "serve")}
        done = run(str(tmp_path / "bin" / "dhcp"), "daemon", "--help", env=env)
        assert done.stderr.startswith("Usage of dhcp daemon:")
        with pytest.raises(BlockingIOError):
            listener.accept()


# -- explain


def explain(node: Node, verb: str, pod: Pod, network: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    path = node.folder / "net.conflist"
    plugin = {key: value for key, value in network.items() if key not in ("cniVersion", "name")}
    path.write_text(json.dumps({"cniVersion": network["cniVersion"], "name": network["name"], "plugins": [plugin]}))
    given = ["--netns", pod.name, "--container-id", "cid1", "--cni-path", str(BIN), "--cache-dir", str(node.folder / "cache")]
    return node.run(str(BIN / "ipcni"), "explain", verb, str(path), *given, check=False, env=node.env)


def test_explain_stops_at_the_daemon_and_its_del_releases(node: Node, server: Server, daemon: Daemon) -> None:
    pod = node.pod()
    said = explain(node, "ADD", pod, bridge(daemon))
    assert f"what follows depends on the answer of {daemon.socket}" in said.stdout + said.stderr
    assert f"A daemon does the work: DHCP.Allocate {daemon.socket}." in said.stdout
    server.settled({})
    node.call("ADD", bridge(daemon), pod).ok()
    said = explain(node, "DEL", pod, bridge(daemon))
    assert list(server.leases) == ["192.168.1.5"]
    node.run("sh", "-e", "-c", said.stdout, env=node.env)
    server.settled({})
    assert (remains(node), held(node)) == ({}, [])
