"""host-local and Debian's Go host-local in one lease directory, in turn and at the same time."""

import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
from typing import Any

import pytest

from tests.lab import BIN, GO, Node

pytestmark = pytest.mark.skipif(not (GO / "host-local").exists(), reason="containernetworking-plugins is not installed")

SUITES = {"go": GO, "ipcni": BIN}
DUAL = [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]


def conf(data_dir: str, ranges: Any = DUAL, **ipam: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "net", "type": "host-local", "ipam": {"dataDir": data_dir, "ranges": ranges, **ipam}}


def call(node: Node, suite: str, verb: str, container: str, ranges: Any = DUAL, **options: Any) -> Any:
    return node.call(verb, conf(node.data_dir, ranges), "/run/netns/none", container=container, bin_dir=SUITES[suite], **options)


@pytest.mark.parametrize(("adder", "other"), [("go", "ipcni"), ("ipcni", "go")])
def test_each_others_leases(node: Node, adder: str, other: str) -> None:
    """Round robin goes on, a duplicate is refused, CHECK finds and DEL releases what the other suite leased."""
    assert call(node, adder, "ADD", "a").ok()["ips"][0]["address"] == "10.1.0.2/16"
    assert call(node, other, "ADD", "b").ok()["ips"][0]["address"] == "10.1.0.3/16"
    assert "10.1.0.2 has been allocated to a, duplicate allocation is not allowed" in call(node, other, "ADD", "a").error()["msg"]
    call(node, other, "CHECK", "a").ok()
    call(node, adder, "CHECK", "b").ok()
    call(node, other, "DEL", "a").ok()
    assert set(node.leases("net")) == {"10.1.0.3", "fd00:1::3"}
    call(node, adder, "DEL", "b").ok()
    assert node.leases("net") == {}
    assert call(node, other, "ADD", "c").ok()["ips"][0]["address"] == "10.1.0.4/16"


@pytest.mark.parametrize(("first", "second"), [("go", "ipcni"), ("ipcni", "go")])
def test_the_same_bytes(node: Node, other_node: Node, first: str, second: str) -> None:
    for each, suite in ((node, first), (other_node, second)):
        for container, args in (("a", ""), ("b", "IP=10.1.7.7"), ("c", "")):
            call(each, suite, "ADD", container, args=args).ok()
    contents = [
        {path.name: path.read_bytes() for path in (pathlib.Path(each.data_dir) / "net").iterdir()} for each in (node, other_node)
    ]
    assert contents[0] == contents[1]
    assert "10.1.7.8" in contents[0]


CASES: list[tuple[Any, str]] = [
    ([[]], ""),
    ([], ""),
    ([[{"subnet": "10.0.0.0/31"}]], ""),
    ([[{"subnet": "10.0.0.5/24"}]], ""),
    ([[{"subnet": "::ffff:10.0.0.0/120"}]], ""),
    ([[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}]], ""),
    ([[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.1"}]], ""),
    ([[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.50", "rangeEnd": "10.1.2.40"}]], ""),
    ([[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]], ""),
    ([[{"subnet": "10.1.0.0/22"}, {"subnet": "10.1.2.0/24"}]], ""),
    ([[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.2.0/24"}]], ""),
    ([[{"subnet": "10.1.2.0/29"}]], "IP=10.1.2.1"),
    ([[{"subnet": "10.1.2.0/29"}]], "IP=10.1.3.1"),
    ([[{"subnet": "10.1.2.0/29"}]], "IP=foo"),
    ([[{"subnet": "10.1.2.0/29"}]], "FOO=1"),
    ([[{"subnet": "foo"}]], ""),
    ([[{"subnet": "10.0.0.0/31"}, {"subnet": "foo"}]], ""),
    ([[{"subnet": "10.1.2.0/24", "gateway": "zz"}]], ""),
    ([[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.9", "gateway": "10.1.2.9"}]], ""),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_same_words(node: Node, case: int) -> None:
    """What is refused is refused in the reference's words: people search for them."""
    ranges, args = CASES[case]
    told = [call(node, suite, "ADD", "a", ranges, args=args).error() for suite in SUITES]
    assert (told[0]["code"], told[0]["msg"]) == (told[1]["code"], told[1]["msg"])


def test_the_same_addresses(node: Node, other_node: Node) -> None:
    """A random history of ADD and DEL, with ranges in pieces, gives the same addresses in the same order."""
    dice = random.Random(7)
    ranges = [[{"subnet": "10.1.2.0/29"}, {"subnet": "10.1.3.0/30"}, {"subnet": "10.1.4.0/29", "rangeStart": "10.1.4.4"}]]
    alive: set[str] = set()
    for number in range(24):
        if alive and dice.random() < 0.4:
            container, verb = dice.choice(sorted(alive)), "DEL"
            alive.discard(container)
        else:
            container, verb = f"c{number}", "ADD"
        answers = [call(each, suite, verb, container, ranges) for each, suite in ((node, "go"), (other_node, "ipcni"))]
        assert (answers[0].status, answers[0].stdout and answers[0].json.get("ips")) == (
            answers[1].status,
            answers[1].stdout and answers[1].json.get("ips"),
        )
        if verb == "ADD" and answers[0].status == 0:
            alive.add(container)
    assert node.leases("net") == other_node.leases("net")


# -- at the same time


def draw(folder: str, suite: str, worker: int, count: int) -> list[tuple[str, str]]:
    """Leases `count` addresses, releasing and leasing again every twentieth; container and address of those that are held."""
    held = []
    for number in range(count):
        container = f"{suite}-{worker}-{number}"
        held.append((container, _lease(folder, suite, "ADD", container)))
        if number % 20 == 19:
            container, _ = held.pop(number // 2 % len(held))
            _lease(folder, suite, "DEL", container)
            held.append((f"{container}-again", _lease(folder, suite, "ADD", f"{container}-again")))
    return held


def _lease(folder: str, suite: str, verb: str, container: str) -> str:
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": "/run/netns/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(SUITES[suite]),
        "IPCNI_STATE_DIR": f"{folder}/state",
        "IPCNI_LOG_DIR": f"{folder}/log",
        "IPCNI_RUN_DIR": f"{folder}/run",
    }
    text = json.dumps(conf(f"{folder}/networks", [[{"subnet": "10.1.0.0/16"}]])).encode()
    if suite == "go":
        done = subprocess.run([str(GO / "host-local")], env=env, input=text, capture_output=True, check=False)
        status, out = done.returncode, done.stdout
    else:
        from ipcni.protocol import skel
        from ipcni.shell.run import Runner

        answer = skel.handle("host-local", env, lambda: text, Runner)
        status, out = answer.status, answer.stdout
    assert status == 0, out
    return str(json.loads(out)["ips"][0]["address"]).partition("/")[0] if verb == "ADD" else ""


def test_eight_workers_and_two_thousand_leases(tmp_path: pathlib.Path) -> None:
    """Half Go, half ipcni, one directory: no address twice, no lease lost, no file corrupt."""
    count = 2000 // 8
    with concurrent.futures.ProcessPoolExecutor(8) as pool:
        jobs = [pool.submit(draw, str(tmp_path), ("go", "ipcni")[worker % 2], worker, count) for worker in range(8)]
        held = [pair for job in jobs for pair in job.result()]
    assert len(held) == 2000
    assert len({address for _, address in held}) == 2000
    folder = tmp_path / "networks" / "net"
    there = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    assert there.pop("lock") == b""
    assert there.pop("last_reserved_ip.0").decode() in there
    assert there == {address: f"{container}\r\neth0".encode() for container, address in held}
