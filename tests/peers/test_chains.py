"""Every chain by Debian's Go plugins on one node and by ours on another: the same state, but for what docs/differences.md lists."""

import json
import pathlib
import re
import time
from typing import Any

import pytest

from tests.lab import BIN, GO, Node
from tests.node.test_equivalence import (
    CHAINS,
    ELSEWHERE,
    NAMES,
    PAGES,
    commands,
    conflist,
    documented,
    keys,
    kind_of,
    on_node,
    prepare,
    state,
)
from tests.state import differences

pytestmark = pytest.mark.skipif(not (GO / "bridge").exists(), reason="containernetworking-plugins is not installed")

Chain = list[dict[str, Any]]
THEIRS = {path.name: path.read_bytes() for path in GO.iterdir()} if GO.is_dir() else {}
# Values that they are too old for, and what stands in for them.
OLDER = {"isolated": "same-bridge", "nftables": "iptables"}
# docs/differences.md
KNOWN = re.compile(
    r"""/files/leases/\S+:\ "644\ (.*)"\ /\ "600\ \1"         # only root can read a lease
    |/files/tuning/\S+                                       # a backup has kernel settings, too
    |/links/(eth0|blue|cni0.100)/txqlen:\ None\ /\ 1000
    |/node/vlans/veth-\S+\ only\ left:\ {'vlan':\ 1,\ 'flags':\ \['Egress\ Untagged'\]}
    |/info_slave_data/(designated_port|id|no):             # which port came first: the pod's, or the one of the VLAN's gateway
    |/pod0/routes:\ only\ right:\ .*\ table\ 42           # which Go's vrf loses
    |/sysctl/net.ipv6.conf.eth0.(keep_addr_on_down|ndisc_notify):\ '0'\ /\ '1'
    |/pod0/sysctl/net.core.somaxconn:\ '500'\ /             # Go's tuning does not restore it on DEL
    |/pod0/(links/eth0/addr_info|routes):\ .*fe80::[0-9a-f]+: # made of a MAC that tuning has replaced
    |/node/firewall:\ only\ left:\ table\ ip6?\ nat\ {          # Go's DEL looks into tables, which makes them
    """,
    re.VERBOSE,
)


def theirs(kind: str, key: str) -> bool:
    """Whether Debian's plugin has the key, by the tags that Go keeps of its structures. Kernel settings are no keys of its."""
    return "." in key or f'json:"{key}'.encode() in THEIRS.get(kind, b"")


def known(value: Any, kind: str = "") -> Any:
    """A configuration without what Debian's plugins are too old for."""
    if isinstance(value, list):
        return [known(each, kind) for each in value]
    if not isinstance(value, dict):
        return OLDER.get(value, value) if isinstance(value, str) and value.encode() not in THEIRS.get(kind, b"") else value
    kind = kind_of(value, kind)
    return {key: known(each, kind) for key, each in value.items() if key == "type" or theirs(kind, key)}


def chain_of(param: Any) -> str:
    return str(param.values[0])


def both(name: str) -> bool:
    """Whether Debian's plugins can do what the chain is about: they are there, and the masters of links where they look for them."""
    mastered = all(theirs(each["type"], "linkInContainer") for each in CHAINS[name] if "linkInContainer" in each)
    return mastered and all(each["type"] in THEIRS for each in CHAINS[name])


PARAMS = [param for param in NAMES if both(chain_of(param))]


@pytest.mark.parametrize("chain", PARAMS)
def test_the_same_state(chain: str, node: Node, other_node: Node) -> None:
    """After ADD, and after DEL (Go's host-device gives back the link alone)."""
    suites = {GO: node, BIN: other_node}
    pods = {suite: each.pod() for suite, each in suites.items()}
    paths: dict[pathlib.Path, pathlib.Path] = {}
    plugins = known(CHAINS[chain])
    for suite, each in suites.items():
        prepare(chain, each, pods[suite])
        for conf in (conf for conf in plugins if conf["type"] == "bridge"):
            # One that somebody has given a MAC: without a gateway Go's has that of a port, and ours has its own.
            filtering = ("vlan_filtering", "1") if "vlan" in json.dumps(conf) else ()
            name = conf.get("bridge", "cni0")
            each.run("ip", "link", "add", name, "address", "02:00:00:00:00:01", "type", "bridge", *filtering)
        paths[suite] = conflist(plugins, each, "1.0.0")
    for verb in ("ADD",) if plugins[0]["type"] == "host-device" else ("ADD", "DEL"):
        for suite, each in suites.items():
            on_node(each, str(BIN / "ipcni"), "run", verb, *commands(each, pods[suite], paths[suite], suite))
        deadline = time.monotonic() + 4
        while True:  # the kernel takes a moment for carriers and link-local addresses
            found = [line for line in differences(seen(node, pods[GO]), seen(other_node, pods[BIN])) if not KNOWN.search(line)]
            if not found or time.monotonic() > deadline:
                break
        assert found == [], verb


def seen(node: Node, pod: Any) -> dict[str, Any]:
    found = state(node, pod, anonymous=True)
    for link in found["node"]["links"].values():
        for address in link["addr_info"]:
            address.pop("nodad", None)  # our gateways' IPv6 addresses are usable at once
    # Of a policy that came after 1.1.1.
    found["node"]["firewall"] = [line.replace("|isolated)", ")") for line in found["node"]["firewall"]]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_that_both_have_is_compared(page: pathlib.Path) -> None:
    compared = {key for kind, key in keys([known(CHAINS[chain_of(param)]) for param in PARAMS], "") if kind == page.stem}
    left = {key for key in documented(page) - compared if theirs(page.stem, key)}
    assert left == {key for key in ELSEWHERE.get(page.stem, ()) if theirs(page.stem, key)}
