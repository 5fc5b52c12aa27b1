"""What is found out about links without a program is what `ip` would have said."""

import json
import signal
import sys
import threading
import time

import pytest

from ipcni.errors import Interrupted
from ipcni.model import Netns
from ipcni.settings import Settings
from ipcni.shell import devices
from ipcni.shell.facts import Facts
from ipcni.shell.inside import inside
from ipcni.shell.iproute import Link
from ipcni.shell.run import Runner
from ipcni.shell.threads import meanwhile
from tests.lab import ENTRY_PATH, ROOT, Node

LINKS = (
    "link add br1 type bridge",
    "link set br1 up mtu 1400 promisc on",
    "addr add 10.9.0.1/16 dev br1",
    "addr add 10.9.7.1/24 dev br1 label br1:2",
    "addr add 10.9.0.3/16 dev br1",
    "addr add fd00:9::1/64 dev br1 nodad",
    "link add veth1 address 02:00:00:00:00:07 txqueuelen 77 type veth peer name veth2",
    "link set veth1 allmulticast on",
    "link property add dev veth1 altname other",
    "link property add dev veth1 altname another-and-longer",
    "link set lo up",
)
BRIDGES = """
import dataclasses, msgspec, sys
from ipcni.shell import devices
sys.stdout.buffer.write(msgspec.json.encode([devices.bridge(name) for name in ("br1", "veth1", "none")]))
"""


def plain(link: Link | None) -> tuple[object, ...]:
    """What both ways tell."""
    assert link
    flags = {flag for flag in link.flags if flag in ("UP", "LOOPBACK", "PROMISC", "ALLMULTI")}
    addresses = sorted((each.text, each.family, each.scope) for each in link.addresses)
    return link.name, link.ifindex, link.mac, link.mtu, link.txqlen, flags, addresses


@pytest.fixture
def links(node: Node) -> Node:
    for line in LINKS:
        node.run("ip", *line.split())
    return node


def test_devices(links: Node) -> None:
    facts = Runner(Settings(), {"PATH": ENTRY_PATH}).facts
    there = Netns(f"/run/netns/{links.name}")
    for name in ("br1", "veth1", "veth2", "lo"):
        assert plain(facts.device(name, there)) == plain(facts.link(name, there))
    assert facts.device("other", there) == facts.device("veth1", there), "what has two names is known by its own"
    for name in ("none", "veth1:0", "another-and-longer"):
        assert facts.device(name, there) is None
    links_there = facts.links(there)
    for name, other in (("veth1", "veth2"), ("veth2", "veth1")):
        assert facts.peer(name, there) == links_there[other].ifindex
    assert [facts.peer(name, there) for name in ("br1", "lo", "none")] == [0, 0, 0]
    assert facts.unknown == []
    assert facts.device("lo", Netns("/run/netns/no-such")) is None
    assert facts.unknown == ["/run/netns/no-such: No such file or directory"]


def test_bridges(links: Node) -> None:
    """Only bridges are; nor is one that only another namespace has, whose /sys is not ours."""
    facts = Runner(Settings(), {"PATH": ENTRY_PATH}).facts
    said = links.run(sys.executable, "-c", BRIDGES, env={"PYTHONPATH": str(ROOT)}).stdout
    bridge, *others = json.loads(said)
    assert others == [None, None]
    assert (bridge["linkinfo"]["info_kind"], bridge["promiscuity"], bridge["mtu"]) == ("bridge", 1, 1400)
    found = facts.link("br1", Netns(f"/run/netns/{links.name}"))
    assert found
    assert sorted(f"{each['local']}/{each['prefixlen']}" for each in bridge["addr_info"]) == sorted(
        each.text for each in found.addresses
    )
    assert devices.bridge("br1") is None


def test_nobody_else_goes_along(links: Node) -> None:
    """The thread that goes to a namespace is the only one that does, whatever happens there."""
    there = Netns(f"/run/netns/{links.name}")

    def name() -> str:
        return json.dumps(Facts(lambda *_: pytest.fail("a program")).sysctl("net/ipv4/conf/br1/forwarding"))

    assert (inside(there, name), name()) == ('"0"', "null")

    def fails() -> None:
        raise ValueError("there")

    with pytest.raises(ValueError, match="there"):
        inside(there, fails)
    assert name() == "null"


@pytest.mark.parametrize("busy", [5, 0], ids=["in the body", "behind the body"])
def test_a_signal_does_not_leave_the_other_thread_behind(busy: float) -> None:
    """The body is given up; what runs beside it is waited for, also when that is all there is to do."""
    ended = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        raise Interrupted

    def slow() -> None:
        time.sleep(0.3)
        ended.set()

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted), meanwhile(slow):
            time.sleep(busy)
        assert ended.is_set()
    finally:
        signal.signal(signal.SIGALRM, before)
