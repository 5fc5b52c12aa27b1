"""A plugin that is killed at any moment: DEL removes what it left. One that is asked to stop removes it itself."""

import fcntl
import json
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab import Answer, Node, Pod
from tests.remains import network, published, remains, tools

MOMENTS = 13  # four times
ENV = "FLANNEL_NETWORK=10.44.0.0/16\nFLANNEL_SUBNET=10.44.0.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


def flannel(node: Node) -> dict[str, Any]:
    """flannel, which calls bridge, which calls host-local and masquerades."""
    (node.folder / "subnet.env").write_text(ENV)
    return {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "flannel",
        "subnetFile": str(node.folder / "subnet.env"),
        "dataDir": str(node.folder / "flannel"),
        "delegate": {"bridge": "br1", "ipMasq": True},
        "ipam": {"dataDir": node.data_dir},
    }


CONFS: dict[str, Callable[[Node], dict[str, Any]]] = {"flannel": flannel, "portmap": lambda _: published()}


def duration(node: Node, conf: dict[str, Any], pod: Pod) -> float:
    """How long an ADD takes, the first one on the node apart."""
    took = 0.0
    for _ in range(2):
        started = time.monotonic()
        node.call("ADD", conf, pod).ok()
        took = time.monotonic() - started
        node.call("DEL", conf, pod).ok()
    return took


def moments(took: float, count: int, seed: str) -> list[float]:
    """Random moments, one in each of `count` equal parts of the duration."""
    rng = random.Random(seed)
    return [took * (part + rng.random()) / count for part in range(count)]


def left(node: Node) -> dict[str, list[str]]:
    """What remains. Behind `ipcni serve` a killed call is undone by a process that nobody waits for: it gets a moment."""
    deadline = time.monotonic() + (3 if node.served else 0)
    while (found := remains(node)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def stopped(node: Node, verb: str, conf: dict[str, Any], pod: Pod, moment: float, number: int) -> Answer:
    """Starts a call and signals the plugin's process, which is the only one the runtime knows, a while later."""
    process = node.start(verb, conf, pod)
    time.sleep(moment)
    process.send_signal(number)
    return node.wait(process)


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("plugin", CONFS)
def test_an_add_that_is_killed(node: Node, plugin: str, half: int) -> None:
    conf, pod = CONFS[plugin](node), node.pod()
    took = duration(node, conf, pod)
    killed = 0
    for moment in moments(took, MOMENTS, f"{plugin}{half}"):
        killed += stopped(node, "ADD", conf, pod, moment, signal.SIGKILL).status == -signal.SIGKILL
        node.call("DEL", conf, pod).ok()
        assert left(node) == {}, f"killed after {moment:.3f} of {took:.3f} s"
        assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert killed >= MOMENTS / 4
    node.call("ADD", conf, pod).ok()
    node.call("DEL", conf, pod).ok()
    assert remains(node) == {}


@pytest.mark.parametrize("plugin", CONFS)
def test_an_add_that_is_asked_to_stop(node: Node, plugin: str) -> None:
    conf, pod = CONFS[plugin](node), node.pod()
    took = duration(node, conf, pod)
    told = 0
    for moment in moments(took, 12, plugin):
        answer = stopped(node, "ADD", conf, pod, moment, signal.SIGTERM)
        if answer.status == 0:
            assert answer.json["cniVersion"] == "1.1.0"
            node.call("DEL", conf, pod).ok()
        elif answer.status == 1:
            error = answer.error()
            assert error["code"] == 11
            assert "interrupted by a signal" in error["msg"]
            told += 1
        else:  # before there was a plugin to ask: `ip netns exec`, sh, or a Python that is still loading
            assert (answer.status, answer.stdout) == (-signal.SIGTERM, b"")
        assert answer.stderr == ""
        assert remains(node) == {}, f"stopped after {moment:.3f} of {took:.3f} s: {answer}"
        assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert told >= 3


@pytest.mark.parametrize("plugin", CONFS)
def test_a_del_that_is_killed(node: Node, plugin: str) -> None:
    """Another one does the rest."""
    conf, pod = CONFS[plugin](node), node.pod()
    node.call("ADD", conf, pod).ok()
    started = time.monotonic()
    node.call("DEL", conf, pod).ok()
    took = time.monotonic() - started
    for moment in moments(took, 10, plugin):
        node.call("ADD", conf, pod).ok()
        stopped(node, "DEL", conf, pod, moment, signal.SIGKILL)
        node.call("DEL", conf, pod).ok()
        assert left(node) == {}, f"killed after {moment:.3f} of {took:.3f} s"


def test_a_killed_call_keeps_its_lock_until_its_command_has_ended(node: Node) -> None:
    """Else DEL would look while the orphan is still at work, and find nothing to remove."""
    env = tools(node.folder / "tools", iptables_restore='touch $here/reached; sleep 1; exec $real "$@"')
    conf, pod = network(node), node.pod()
    process = node.start("ADD", conf, pod, env=env)
    while not (node.folder / "tools" / "reached").exists():
        time.sleep(0.01)
    process.kill()
    node.wait(process)
    node.call("DEL", conf, pod).ok()
    time.sleep(1.2)
    assert remains(node) == {}


def test_what_a_killed_call_leaves_is_free_for_others(node: Node) -> None:
    """An empty lease file is what a crash between making and writing it leaves; its address is not lost."""
    conf = network(node)
    conf["ipam"]["ranges"] = [[{"subnet": "10.44.0.0/30"}]]
    (node.folder / "networks" / "net1").mkdir(parents=True)
    (node.folder / "networks" / "net1" / "10.44.0.2").touch()
    result = node.call("ADD", conf, node.pod()).ok()
    assert result["ips"][0]["address"] == "10.44.0.2/30"


def test_gc_frees_what_was_never_deleted(node: Node) -> None:
    """The runtime lost its memory of the container with its plugin's process."""
    conf, pod = flannel(node), node.pod()
    took = duration(node, conf, pod)
    for share in (0.6, 0.75, 0.9):
        stopped(node, "ADD", conf, pod, took * share, signal.SIGKILL)
        pod.run("ip", "link", "del", "eth0", check=False)
        node.call("GC", {**conf, "cni.dev/valid-attachments": []}).ok()
        left = remains(node)
        left.pop("locks", None)
        assert left == {}, json.dumps(left)


def test_a_half_written_note_goes_with_the_container(node: Node) -> None:
    conf, pod = flannel(node), node.pod()
    (node.folder / "flannel").mkdir()
    for verb in ("DEL", "ADD"):
        (node.folder / "flannel" / ".cid1").write_text('{"ty')
        node.call(verb, conf, pod).ok()
        assert not (node.folder / "flannel" / ".cid1").exists()
    (node.folder / "flannel" / ".cid1").write_text(json.dumps({"type": "bridge", "name": "net1"}))
    (node.folder / "flannel" / ".cid2").write_text(json.dumps({"type": "bridge", "name": "net1"}))
    alive = [{"containerID": "cid2", "ifname": "eth0"}, {"containerID": "cid1", "ifname": "eth0"}]
    node.call("GC", {**conf, "cni.dev/valid-attachments": alive}).ok()
    assert sorted(remains(node)["notes"]) == [".cid1", ".cid2", "cid1"]
    node.call("GC", {**conf, "cni.dev/valid-attachments": alive[1:]}).ok()
    assert sorted(remains(node)["notes"]) == [".cid1", "cid1"]
    node.call("DEL", conf, pod).ok()
    assert remains(node) == {}


def test_a_note_that_is_being_written_stays(node: Node) -> None:
    """Another network's ADD is at it; what no command takes so long for is a crash's."""
    conf = flannel(node)
    (node.folder / "flannel").mkdir()
    draft = node.folder / "flannel" / ".other"
    draft.write_text("")
    node.call("GC", {**conf, "cni.dev/valid-attachments": []}).ok()
    assert draft.exists()
    os.utime(draft, (time.time() - 3600, time.time() - 3600))
    node.call("GC", {**conf, "cni.dev/valid-attachments": []}).ok()
    assert not draft.exists()


def test_a_del_that_waits_for_the_leases_is_stopped(node: Node) -> None:
    """At once, though it is another thread that waits, which no signal reaches."""
    conf, pod = network(node), node.pod()
    node.call("ADD", conf, pod).ok()
    with open(f"{node.data_dir}/net1/lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = node.start("DEL", conf, pod)
        deadline = time.monotonic() + 10
        while any(link.startswith("veth") for link in node.links()) and time.monotonic() < deadline:
            time.sleep(0.01)
        began = time.monotonic()
        process.terminate()
        answer = node.wait(process)
        assert time.monotonic() - began < 3
    if not node.served:
        assert answer.error()["msg"] == "DEL was interrupted by a signal"
    node.call("DEL", conf, pod).ok()
    assert left(node) == {}
