"""macvlan, ipvlan, vlan and dummy beside Debian's Go plugins: what one makes the other checks and removes, and both make the same."""

from typing import Any

import pytest

from tests.lab import BIN, GO, Node, Pod
from tests.node.test_children import conf, master
from tests.state import differences, settle, snapshot

pytestmark = pytest.mark.skipif(not (GO / "macvlan").exists(), reason="containernetworking-plugins is not installed")

SUITES = {"go": GO, "ipcni": BIN}
V4: dict[str, Any] = {"subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "macvlan": ("macvlan", {"mac": "c2:11:22:33:44:55"}),
    "macvlan, mode and mtu": ("macvlan", {"mac": "c2:11:22:33:44:55", "mode": "private", "mtu": 1400}),
    "ipvlan, mode and mtu": ("ipvlan", {"mode": "l3s", "mtu": 1400}),
    "vlan": ("vlan", {"vlanId": 9, "mtu": 1400}),
}
# docs/differences.md: newer Go plugins announce IPv6 addresses, too; the kernel's default queue length stays.
KNOWN = ("/pod0/links/eth0/txqlen: None / 1000", "/pod0/sysctl/net.ipv6.conf.eth0.ndisc_notify: '0' / '1'")
PARAMS = [pytest.param(name, marks=[pytest.mark.kernel(kind)] if kind != "macvlan" else []) for name, (kind, _) in CASES.items()]


def call(node: Node, suite: str, verb: str, wanted: dict[str, Any], pod: Pod | str) -> Any:
    return node.call(verb, wanted, pod, bin_dir=SUITES[suite], path=str(SUITES[suite])).ok()


@pytest.mark.parametrize(("adder", "remover"), [("go", "ipcni"), ("ipcni", "go")])
@pytest.mark.parametrize("case", PARAMS)
def test_the_other_suite_takes_over(node: Node, case: str, adder: str, remover: str) -> None:
    master(node)
    pod = node.pod()
    kind, keys = CASES[case]
    wanted = conf(node, kind, V4, "1.0.0", **keys)
    known = {**wanted, "prevResult": call(node, adder, "ADD", wanted, pod)}
    for suite in (remover, adder):
        call(node, suite, "CHECK", known, pod)
    for _ in range(2):
        call(node, remover, "DEL", known, pod)
    assert [each["ifname"] for each in pod.ip("link", "show")] == ["lo"]
    assert node.leases("podnet") == {}


@pytest.mark.parametrize("case", PARAMS)
def test_both_make_the_same(node: Node, other_node: Node, case: str) -> None:
    states = []
    kind, keys = CASES[case]
    for suite, each in (("go", node), ("ipcni", other_node)):
        master(each)
        pod = each.pod()
        wanted = conf(each, kind, V4, "1.0.0", **keys)
        result = call(each, suite, "ADD", wanted, pod)
        settle(each, pod)
        if not result.get("dns"):
            result.pop("dns", None)  # ours leaves out what is empty
        states.append((snapshot(each, [pod]), {**result, "interfaces": [{**result["interfaces"][0], "sandbox": ""}]}))
    assert states[0][1] == states[1][1]
    found = [each for each in differences(states[0][0], states[1][0]) if each not in KNOWN]
    assert found == [], "\n".join(found)
