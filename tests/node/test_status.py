"""STATUS tells what a node lacks before a pod finds out (protocol sheet 2.6)."""

import pathlib
from typing import Any

import pytest

from ipcni import install
from ipcni.errors import NOT_AVAILABLE, CniError
from ipcni.protocol import ready, skel
from tests import kernel
from tests.lab import Node
from tests.nowhere import Nowhere
from tests.remains import tools

TOOLS = [(name, tool) for name in install.plugins() for tool in getattr(skel.load(name), "TOOLS", ())]
LINKS = [(name, link) for name in install.plugins() for link in getattr(skel.load(name), "LINKS", ())]
UNKNOWN = 'echo "Error: Unknown device type." >&2; exit 2'


class Bare(Nowhere):
    """A node without one tool."""

    def __init__(self, lacks: str) -> None:
        super().__init__()
        self.lacks = lacks

    def has(self, tool: str) -> bool:
        return tool != self.lacks


def status(node: Node, name: str, env: dict[str, str] | None = None, **keys: Any) -> dict[str, Any]:
    """The error of a STATUS."""
    conf = {"cniVersion": "1.1.0", "name": "net", "type": name, **keys}
    return node.call("STATUS", conf, env=env).error()


@pytest.mark.parametrize(("name", "tool"), TOOLS)
def test_a_tool_is_missing(name: str, tool: str) -> None:
    with pytest.raises(CniError) as caught:
        ready.check(Bare(tool), skel.load(name))
    assert (caught.value.code, caught.value.msg) == (NOT_AVAILABLE, f"this node has no {tool}")


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_the_kernel_lacks_a_kind_of_link(node: Node, tmp_path: pathlib.Path, name: str, link: str) -> None:
    """An `unshare` that tells only of this kind that there is none."""
    script = f'case "$*" in *" type {link}") {UNKNOWN};; esac; exec /usr/bin/unshare "$@"'
    error = status(node, name, tools(tmp_path / "tools", unshare=script))
    assert error["code"] == NOT_AVAILABLE
    if all(kernel.makes(other) for other in getattr(skel.load(name), "LINKS", ())):
        assert error["msg"] == f"this kernel makes no links of type {link}"
        assert f"modprobe {link}" in error["details"]


@pytest.mark.parametrize(("queue", "kind"), [("root tbf", "tbf"), ("ingress", "ingress")])
def test_the_kernel_lacks_a_queue(node: Node, tmp_path: pathlib.Path, queue: str, kind: str) -> None:
    unknown = "echo 'Error: Specified qdisc kind is unknown.' >&2; exit 2"
    script = f'case "$*" in *" tc qdisc add dev lo {queue}"*) {unknown};; esac; exec /usr/bin/unshare "$@"'
    error = status(node, "bandwidth", tools(tmp_path / "tools", unshare=script))
    assert (error["code"], error["msg"]) == (NOT_AVAILABLE, f"this kernel has no queue {kind}")
    assert f"modprobe sch_{kind}" in error["details"]
    node.call("STATUS", {"cniVersion": "1.1.0", "name": "net", "type": "bandwidth"}).ok()


def test_a_bridge_with_vlans_on_this_kernel(node: Node) -> None:
    said = node.call("STATUS", {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "vlan": 5})
    if kernel.has("vlan_filtering"):
        said.ok()
    else:
        assert said.error()["msg"] == "this kernel makes no links of type bridge vlan_filtering 1"


@pytest.mark.parametrize("name", ["bridge", "ptp"])
def test_masquerading_without_a_nat_table(node: Node, tmp_path: pathlib.Path, name: str) -> None:
    env = tools(tmp_path / "tools", iptables="echo 'no such table' >&2; exit 3")
    ipam = {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": node.data_dir}
    error = status(node, name, env, ipam=ipam, ipMasq=True)
    assert error == {"code": NOT_AVAILABLE, "msg": "iptables cannot use the nat table: no such table"}
    node.call("STATUS", {"cniVersion": "1.1.0", "name": "net", "type": name, "ipam": ipam}, env=env).ok()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("portmap", {"backend": "nftables"}),
        ("firewall", {"backend": "nftables"}),
        ("bridge", {"macspoofchk": True}),
        ("bridge", {"ipMasq": True, "ipMasqBackend": "nftables"}),
        ("ptp", {"ipMasq": True, "ipMasqBackend": "nftables"}),
    ],
)
def test_the_kernel_lacks_nftables(node: Node, tmp_path: pathlib.Path, name: str, keys: dict[str, Any]) -> None:
    ipam = {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": node.data_dir}
    conf = {**({"ipam": ipam} if name in ("bridge", "ptp") else {}), **keys}
    env = tools(tmp_path / "tools", nft="echo 'netlink: Error: cache initialization failed: Invalid argument' >&2; exit 1")
    error = status(node, name, env, **conf)
    said = "nft cannot be used: nft list ruleset: netlink: Error: cache initialization failed: Invalid argument"
    assert error == {"code": NOT_AVAILABLE, "msg": said}
    node.call("STATUS", {"cniVersion": "1.1.0", "name": "net", "type": name, **conf}).ok()


def test_the_tools_that_a_bridges_keys_need(node: Node, tmp_path: pathlib.Path) -> None:
    """The probe says that all is there, so that the tool is what is asked for next."""
    env = tools(tmp_path / "tools", unshare="exit 0")
    node.call("STATUS", {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "vlan": 5, "macspoofchk": True}, env=env).ok()
