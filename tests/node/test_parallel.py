"""Many calls at the same time on a node where nothing has been made yet."""

import concurrent.futures
import json
from collections.abc import Callable
from typing import Any

from tests.lab import Answer, Node, Pod
from tests.remains import network, remains

Job = tuple[dict[str, Any], Pod, str, int]


def at_once(jobs: list[Job], work: Callable[[Job], Answer]) -> list[Any]:
    """Does all of them together; all must succeed."""
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        answers = list(pool.map(work, jobs))
    faults = [answer.stdout.decode() + answer.stderr for answer in answers if answer.status or answer.stderr]
    assert not faults, "\n".join(faults)
    return [answer.ok() for answer in answers]


def ports(conf: dict[str, Any], number: int, prev: Any) -> dict[str, Any]:
    mapping = {"hostPort": 8000 + number, "containerPort": 80, "protocol": "tcp"}
    return {
        "cniVersion": "1.1.0",
        "name": conf["name"],
        "type": "portmap",
        "runtimeConfig": {"portMappings": [mapping]},
        "prevResult": prev,
    }


def added(node: Node, jobs: list[Job]) -> list[Any]:
    """bridge and portmap, as a runtime chains them."""

    def work(job: Job) -> Answer:
        conf, pod, container, number = job
        answer = node.call("ADD", conf, pod, container=container)
        if answer.status:
            return answer
        return node.call("ADD", ports(conf, number, json.loads(answer.stdout)), pod, container=container)

    return at_once(jobs, work)


def deleted(node: Node, jobs: list[Job], results: list[Any]) -> None:
    prev = {job[2]: result for job, result in zip(jobs, results, strict=True)}

    def work(job: Job) -> Answer:
        conf, pod, container, number = job
        answer = node.call("DEL", ports(conf, number, prev[container]), pod, container=container)
        if answer.status:
            return answer
        return node.call("DEL", {**conf, "prevResult": prev[container]}, pod, container=container)

    at_once(jobs, work)


def jobs(node: Node, *confs: dict[str, Any], count: int) -> list[Job]:
    return [(confs[number % len(confs)], node.pod(), f"cid{number}", number) for number in range(count)]


def bridges(node: Node) -> dict[str, list[str]]:
    """The bridges of the node, and their IPv4 addresses."""
    return {
        link["ifname"]: [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["family"] == "inet"]
        for link in node.ip("-d", "addr")
        if link.get("linkinfo", {}).get("info_kind") == "bridge"
    }


def test_fifty_pods_on_a_fresh_node(node: Node) -> None:
    work = jobs(node, network(node), count=50)
    results = added(node, work)
    addresses = {result["ips"][0]["address"] for result in results}
    assert (len(addresses), len(node.leases("net1"))) == (50, 50)
    assert sorted(node.leases("net1").values()) == sorted(f"{container}\r\neth0" for _, _, container, _ in work)
    assert bridges(node) == {"br1": ["10.44.0.1/24"]}
    rules = node.rules()
    assert len([rule for rule in rules if rule.startswith("-A POSTROUTING -s ")]) == 50
    assert len([rule for rule in rules if rule.startswith("-A CNI-HOSTPORT-DNAT ")]) == 50
    for shared in ("-A PREROUTING ", "-A OUTPUT ", "-A CNI-HOSTPORT-MASQ ", "-A CNI-HOSTPORT-SETMARK "):
        assert len([rule for rule in rules if rule.startswith(shared)]) == 1, shared
    assert len({link["address"] for link in node.ip("link")}) == 52
    deleted(node, work, results)
    assert remains(node) == {}
    assert bridges(node) == {"br1": ["10.44.0.1/24"]}


def test_two_networks_that_share_a_bridge(node: Node) -> None:
    """One is IPv4, the other one IPv6: both gateways are the bridge's."""
    six = network(node, name="net2")
    six["ipam"] = {**six["ipam"], "ranges": [[{"subnet": "fd00:44::/64"}]]}
    work = jobs(node, network(node), six, count=8)
    results = added(node, work)
    assert (len(node.leases("net1")), len(node.leases("net2"))) == (4, 4)
    assert bridges(node) == {"br1": ["10.44.0.1/24"]}
    (six_there,) = [link["addr_info"] for link in node.ip("addr") if link["ifname"] == "br1"]
    assert [each["local"] for each in six_there if each["scope"] == "global"] == ["10.44.0.1", "fd00:44::1"]
    deleted(node, work, results)
    assert remains(node) == {}


def test_one_pod_is_added_eight_times_at_once(node: Node) -> None:
    """One call makes it, and the others neither join in nor spoil it."""
    conf, pod = network(node), node.pod()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: node.call("ADD", conf, pod), range(8)))
    won = [answer for answer in answers if answer.status == 0]
    assert len(won) == 1
    assert {answer.error()["code"] for answer in answers if answer.status} == {999}
    assert len(node.leases("net1")) == 1
    assert pod.ip("-4", "addr", "show", "dev", "eth0")[0]["addr_info"][0]["local"] in node.leases("net1")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(lambda _: node.call("DEL", conf, pod), range(8))} == {0}
    assert remains(node) == {}
