"""Many pods at once on a fresh node, and bridges with all their rules killed at any moment (USERS 8, 12)."""

import json
import random
import signal
import time
from typing import Any

import pytest

from tests.lab import Node

PODS = 20
DUAL = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]


def conf(node: Node, **keys: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": node.data_dir, "ranges": DUAL}
    full = {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True}
    return {"cniVersion": "1.1.0", "name": "net", "type": "bridge", **full, "ipam": ipam, **keys}


def rules(node: Node) -> list[str]:
    """All that is any pod's own: chains, rules, comments."""
    lines = node.rules() + node.rules("ip6tables") + node.run("nft", "list", "ruleset").stdout.splitlines()
    return [line for line in lines if any(word in line for word in ("CNI-", "cni-br-iface", "macspoofchk", "masquerade comment"))]


def veths(node: Node) -> list[str]:
    return [name for name in node.links() if name.startswith("veth")]


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_twenty_at_once(node: Node, backend: str) -> None:
    """One bridge, one address a family, no error; then everything goes again, at once."""
    wanted = conf(node, ipMasqBackend=backend)
    pods = [node.pod() for _ in range(PODS)]
    calls = [node.start("ADD", wanted, pod, container=f"c{number}") for number, pod in enumerate(pods)]
    results = [node.wait(call).ok() for call in calls]
    given = {result["ips"][0]["address"] for result in results}
    assert given == {f"10.7.0.{number}/24" for number in range(2, PODS + 2)}
    assert len({result["ips"][1]["address"] for result in results}) == PODS
    assert len({result["interfaces"][0]["mac"] for result in results}) == 1
    bridge = node.ip("addr", "show", "dev", "cni0")[0]
    held = sorted(each["local"] for each in bridge["addr_info"] if each.get("scope") == "global")
    assert held == ["10.7.0.1", "fd00:7::1"]
    assert len(veths(node)) == PODS
    assert len([line for line in rules(node) if "ether saddr" in line]) == PODS
    pods[0].run("ping", "-c", "1", "-W", "2", results[-1]["ips"][0]["address"].partition("/")[0])
    checks = [
        node.start("CHECK", {**wanted, "prevResult": result}, pod, container=f"c{number}")
        for number, (pod, result) in enumerate(zip(pods[:8], results[:8], strict=True))
    ]
    for check in checks:
        node.wait(check).ok()
    calls = [node.start("DEL", wanted, pod, container=f"c{number}") for number, pod in enumerate(pods)]
    for call in calls:
        node.wait(call).ok()
    assert (veths(node), node.leases("net"), rules(node)) == ([], {}, [])
    assert node.ip("link", "show", "dev", "cni0")[0]["address"] == results[0]["interfaces"][0]["mac"]


def test_one_container_many_networks(node: Node) -> None:
    """Ten interfaces of one pod at once, each on a bridge of its own; the masquerade chain of a network is theirs together."""
    pod = node.pod()

    def one(number: int) -> dict[str, Any]:
        ipam = {"type": "host-local", "dataDir": node.data_dir, "subnet": f"10.{number}.0.0/24"}
        return conf(node, bridge=f"br{number}", isDefaultGateway=False, isGateway=True, ipam=ipam)

    calls = [node.start("ADD", one(number), pod, ifname=f"eth{number}") for number in range(10)]
    for call in calls:
        node.wait(call).ok()
    masquerading = [line for line in node.rules() if line.endswith("-j MASQUERADE")]
    accepting = [line for line in node.rules() if line.startswith("-A CNI-") and line.endswith("-j ACCEPT")]
    assert (len(masquerading), len(accepting)) == (1, 10)
    assert node.rules().index(masquerading[0]) > node.rules().index(accepting[-1])
    calls = [node.start("DEL", one(number), pod, ifname=f"eth{number}") for number in range(10)]
    for call in calls:
        node.wait(call).ok()
    assert (veths(node), node.leases("net"), rules(node)) == ([], {}, [])


def test_adds_and_dels_of_the_same_pod_at_once(node: Node) -> None:
    """They come one after the other; what is there in the end is whole, or nothing."""
    wanted = conf(node)
    pod = node.pod()
    dice = random.Random(3)
    for _ in range(3):
        verbs = dice.choices(("ADD", "DEL"), k=6)
        for call in [node.start(verb, wanted, pod) for verb in verbs]:
            node.wait(call)
        ends = veths(node)
        leases = node.leases("net")
        assert (len(ends), len(leases)) in ((0, 0), (1, 2))
        assert len([line for line in rules(node) if "ether saddr" in line]) == len(ends)
    node.call("DEL", wanted, pod).ok()
    assert (veths(node), node.leases("net"), rules(node)) == ([], {}, [])


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to stop"])
def test_an_add_with_all_rules_that_is_ended(node: Node, backend: str, number: signal.Signals) -> None:
    """Anywhere in its real duration: killed, DEL removes everything; asked to stop, it does so itself and says so once."""
    wanted = conf(node, ipMasqBackend=backend)
    pod = node.pod()
    node.call("ADD", wanted, pod).ok()
    node.call("DEL", wanted, pod).ok()
    started = time.monotonic()
    node.call("ADD", wanted, pod).ok()
    took = time.monotonic() - started
    node.call("DEL", wanted, pod).ok()
    dice = random.Random(f"{backend}{number}")
    outcomes = set()
    for part in range(8):
        call = node.start("ADD", wanted, pod)
        time.sleep(took * (part + dice.random()) / 8)
        call.send_signal(number)  # the plugin only, not what it has started
        out, err = call.communicate(timeout=60)
        assert b"Traceback" not in err
        if number == signal.SIGTERM and out and call.returncode == 1:
            assert {"code", "msg"} <= set(json.loads(out))
            assert (veths(node), node.leases("net"), rules(node)) == ([], {}, []), "it has undone itself"
        outcomes.add(call.returncode)
        node.call("DEL", wanted, pod).ok()
        assert (veths(node), node.leases("net"), rules(node)) == ([], {}, []), part
        assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert outcomes & {1, -number, 128 + number}, "none was ended in time"
