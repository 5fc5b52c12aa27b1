"""Published ports on a real kernel: the state recorded of the reference, its own binary as the other side, and traffic."""

import fcntl
import json
import pathlib
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipcni import names
from ipcni.model import Attachment
from tests.lab import BIN, ENTRY_PATH, GO, Node, Pod

CHAIN = "CNI-DN-e41f9a45e2c62f3b407ae"  # of podnet and cid1, as the reference derives it
NETNS = "/run/netns/portmap-needs-none"
WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
DNS = {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}
SIX = (
    WEB,
    DNS,
    {"hostPort": 8443, "containerPort": 443, "protocol": "tcp", "hostIP": "192.0.2.10"},
    {"hostPort": 8444, "containerPort": 444, "protocol": "tcp", "hostIP": "2001:db8::10"},
    {"hostPort": 8445, "containerPort": 445, "protocol": "tcp", "hostIP": "0.0.0.0"},
    {"hostPort": 8446, "containerPort": 446, "protocol": "tcp", "hostIP": "::"},
)
V4, V6 = "10.88.3.2/24", "fd00:88:3::2/64"
COMMENT = r'-m comment --comment "dnat name: \"podnet\" id: \"cid1\"" -m multiport'


def config(*mappings: dict[str, Any], ips: tuple[str, ...] = (V4,), **keys: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "podnet",
        "type": "portmap",
        "runtimeConfig": {"portMappings": list(mappings)},
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": ip} for ip in ips]},
        **keys,
    }


def own(node: Node, tool: str = "iptables") -> list[str]:
    """The rules of the container's chain and the ways into it."""
    return [rule for rule in node.rules(tool) if rule.startswith("-A") and CHAIN in rule]


def nft(node: Node, family: str = "ip") -> str:
    return node.run("nft", "list", "table", family, "cni_hostport", check=False).stdout


def wrapped(folder: pathlib.Path, script: str, tools: tuple[str, ...]) -> dict[str, str]:
    """An environment in which the tools are scripts; `{tool}` in them is the name."""
    folder.mkdir()
    for tool in tools:
        (folder / tool).write_text("#!/bin/sh\n" + script.replace("{tool}", tool))
        (folder / tool).chmod(0o755)
    return {"PATH": f"{folder}:{ENTRY_PATH}"}


# -- the state that the reference leaves, byte for byte (sheet 2.4, 2.5)

HEAD = f"""*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:{CHAIN} -
:CNI-HOSTPORT-DNAT -
:CNI-HOSTPORT-MASQ -
:CNI-HOSTPORT-SETMARK -
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
"""
FOUR = f"""-A {CHAIN} -s 10.88.3.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.3.2:80
-A {CHAIN} -s 10.88.3.0/24 -p udp -m udp --dport 8053 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -s 127.0.0.1/32 -p udp -m udp --dport 8053 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -p udp -m udp --dport 8053 -j DNAT --to-destination 10.88.3.2:53
-A {CHAIN} -s 10.88.3.0/24 -d 192.0.2.10/32 -p tcp -m tcp --dport 8443 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -s 127.0.0.1/32 -d 192.0.2.10/32 -p tcp -m tcp --dport 8443 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -d 192.0.2.10/32 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 10.88.3.2:443
-A {CHAIN} -s 10.88.3.0/24 -p tcp -m tcp --dport 8445 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -s 127.0.0.1/32 -p tcp -m tcp --dport 8445 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -p tcp -m tcp --dport 8445 -j DNAT --to-destination 10.88.3.2:445
"""
FOUR_V6 = f"""-A {CHAIN} -s fd00:88:3::/64 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:88:3::2]:80
-A {CHAIN} -s fd00:88:3::/64 -p udp -m udp --dport 8053 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -p udp -m udp --dport 8053 -j DNAT --to-destination [fd00:88:3::2]:53
-A {CHAIN} -s fd00:88:3::/64 -d 2001:db8::10/128 -p tcp -m tcp --dport 8444 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -d 2001:db8::10/128 -p tcp -m tcp --dport 8444 -j DNAT --to-destination [fd00:88:3::2]:444
-A {CHAIN} -s fd00:88:3::/64 -p tcp -m tcp --dport 8446 -j CNI-HOSTPORT-SETMARK
-A {CHAIN} -p tcp -m tcp --dport 8446 -j DNAT --to-destination [fd00:88:3::2]:446
"""
ENTRIES = f"""-A CNI-HOSTPORT-DNAT -p tcp {COMMENT} --dports 8080,8443,8444,8445,8446 -j {CHAIN}
-A CNI-HOSTPORT-DNAT -p udp {COMMENT} --dports 8053 -j {CHAIN}
"""
TAIL = """-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
COMMIT
"""
NFT = """table ip cni_hostport {
	comment "CNI portmap plugin"
	chain hostports {
		tcp dport 8080 dnat to 10.88.3.2:80 comment "cid1"
		udp dport 8053 dnat to 10.88.3.2:53 comment "cid1"
		ip daddr 192.0.2.10 tcp dport 8443 dnat to 10.88.3.2:443 comment "cid1"
		tcp dport 8445 dnat to 10.88.3.2:445 comment "cid1"
	}

	chain hostip_hostports {
	}

	chain hostports_all {
		jump hostip_hostports
		jump hostports
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump hostports_all
	}

	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local jump hostports_all
	}

	chain masquerading {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.88.3.2 ip daddr 10.88.3.2 masquerade comment "cid1"
		ip saddr 127.0.0.1 ip daddr 10.88.3.2 masquerade comment "cid1"
	}
}
"""


def test_the_recorded_iptables_state(node: Node) -> None:
    conf = config(*SIX, ips=(V4, V6))
    answer = node.call("ADD", conf, NETNS).ok()
    assert answer["ips"] == conf["prevResult"]["ips"]
    assert "\n".join(node.rules()) + "\n" == HEAD + FOUR + ENTRIES + TAIL
    assert "\n".join(node.rules("ip6tables")) + "\n" == HEAD + FOUR_V6 + ENTRIES + TAIL
    node.call("CHECK", conf, NETNS).ok()

    node.call("DEL", conf).ok()
    bare = HEAD.replace(f":{CHAIN} -\n", "") + TAIL
    assert "\n".join(node.rules()) + "\n" == bare
    assert "\n".join(node.rules("ip6tables")) + "\n" == bare
    assert "chain CNI-DN-" in node.call("CHECK", conf, NETNS).error()["msg"]
    node.call("DEL", conf).ok()


def test_the_recorded_nftables_state(node: Node) -> None:
    conf = config(*SIX, ips=(V4, V6), backend="nftables")
    assert "missing hostport rules" in node.call("CHECK", conf, NETNS).error()["msg"]
    node.call("ADD", conf, NETNS).ok()
    assert nft(node) == NFT
    six = nft(node, "ip6")
    for rule in (
        'tcp dport 8080 dnat to [fd00:88:3::2]:80 comment "cid1"',
        'ip6 daddr 2001:db8::10 tcp dport 8444 dnat to [fd00:88:3::2]:444 comment "cid1"',
        'tcp dport 8446 dnat to [fd00:88:3::2]:446 comment "cid1"',
        'ip6 saddr fd00:88:3::2 ip6 daddr fd00:88:3::2 masquerade comment "cid1"',
    ):
        assert six.count(rule) == 1
    assert six.count("cid1") == 5
    assert "CNI-" not in "".join(node.rules())
    node.call("CHECK", conf, NETNS).ok()

    node.call("DEL", conf).ok()
    assert nft(node) == re.sub(r".*cid1.*\n", "", NFT)
    assert "cid1" not in nft(node, "ip6")
    assert 'in "hostports"' in node.call("CHECK", conf, NETNS).error()["msg"]
    node.call("DEL", conf).ok()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"masqAll": True},
            [
                f"-A {CHAIN} -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
                f"-A {CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.3.2:80",
                f"-A CNI-HOSTPORT-DNAT -p tcp {COMMENT} --dports 8080 -j {CHAIN}",
            ],
        ),
        (
            {"snat": False},
            [
                f"-A {CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.3.2:80",
                f"-A CNI-HOSTPORT-DNAT -p tcp {COMMENT} --dports 8080 -j {CHAIN}",
            ],
        ),
        (
            {"snat": False, "conditionsV4": ["!", "-s", "198.51.100.0/24"]},
            [
                f"-A {CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.3.2:80",
                f"-A CNI-HOSTPORT-DNAT ! -s 198.51.100.0/24 -p tcp {COMMENT} --dports 8080 -j {CHAIN}",
            ],
        ),
        (
            {"externalSetMarkChain": "KUBE-MARK-MASQ"},
            [
                f"-A {CHAIN} -s 10.88.3.0/24 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ",
                f"-A {CHAIN} -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ",
                f"-A {CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.3.2:80",
                f"-A CNI-HOSTPORT-DNAT -p tcp {COMMENT} --dports 8080 -j {CHAIN}",
            ],
        ),
    ],
    ids=["masqAll", "no-snat", "conditions", "external"],
)
def test_the_recorded_variants(node: Node, keys: dict[str, Any], expected: list[str]) -> None:
    node.run("iptables", "-t", "nat", "-N", "KUBE-MARK-MASQ")
    conf = config(WEB, **keys)
    node.call("ADD", conf, NETNS).ok()
    assert own(node) == expected
    assert ("CNI-HOSTPORT-MASQ" in "".join(node.rules())) == ("masqAll" in keys)
    node.call("CHECK", conf, NETNS).ok()
    node.call("DEL", conf).ok()
    assert own(node) == []


def test_the_recorded_split_into_fifteen_ports(node: Node) -> None:
    mappings = [{"hostPort": 9000 + n, "containerPort": 80, "protocol": "udp" if n % 2 else "tcp"} for n in range(34)]
    node.call("ADD", config(*mappings), NETNS).ok()
    ports = [rule.split("--dports ")[1].split()[0] for rule in own(node) if "--dports" in rule]
    assert [group.split(",")[0::14] for group in ports] == [["9000", "9028"], ["9030"], ["9001", "9029"], ["9031"]]


def test_masquerade_all_with_nftables(node: Node) -> None:
    """One masquerade rule of each family."""
    conf = config(WEB, ips=(V4, V6), backend="nftables", masqAll=True)
    node.call("ADD", conf, NETNS).ok()
    assert nft(node).count("masquerade ") == nft(node, "ip6").count("masquerade ") == 1
    assert "ip saddr 0.0.0.0/0 ip daddr 10.88.3.2 masquerade" in nft(node)
    node.call("CHECK", conf, NETNS).ok()


def test_nftables_check_counts_masquerading(node: Node) -> None:
    node.call("ADD", config(WEB, backend="nftables", snat=False), NETNS).ok()
    assert "masquerading" not in nft(node)
    conf = config(WEB, backend="nftables")
    assert node.call("CHECK", conf, NETNS).error()["msg"] == 'missing hostport rules in "masquerading" chain'
    node.call("ADD", conf, NETNS).ok()
    node.call("CHECK", conf, NETNS).ok()


def test_nftables_conditions_stand_before_the_local_test(node: Node) -> None:
    conf = config(WEB, backend="nftables", conditionsV4=["ip", "saddr", "!=", "{", "192.0.2.1,", "192.0.2.2", "}"])
    node.call("ADD", conf, NETNS).ok()
    assert nft(node).count("ip saddr != { 192.0.2.1, 192.0.2.2 } fib daddr type local jump hostports_all") == 2


# -- doing it again, failing, and cleaning up


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_repeated_add_replaces_the_containers_rules(node: Node, backend: str) -> None:
    def state() -> list[str]:
        return own(node) + re.findall(".*cid1.*", nft(node))

    node.call("ADD", config(WEB, DNS, backend=backend), NETNS).ok()
    node.call("ADD", config({**WEB, "hostPort": 9999}, backend=backend), NETNS, container="cid0").ok()
    before = state()
    node.call("ADD", config(WEB, DNS, backend=backend), NETNS).ok()
    assert state() == before
    node.call("ADD", config(WEB, backend=backend), NETNS).ok()
    assert state() == [line.replace("8080,8053", "8080") for line in before if "udp" not in line]
    assert "9999" in "".join(node.rules()) + nft(node)


def test_foreign_rules_in_shared_chains_stay(node: Node) -> None:
    node.run("iptables", "-t", "nat", "-N", "CNI-HOSTPORT-DNAT")
    node.run("iptables", "-t", "nat", "-A", "CNI-HOSTPORT-DNAT", "-p", "tcp", "--dport", "1", "-j", "RETURN")
    for _ in range(2):
        node.call("ADD", config(WEB), NETNS).ok()
    node.call("DEL", config(WEB)).ok()
    assert "-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 1 -j RETURN" in node.rules()
    assert len([rule for rule in node.rules() if rule.endswith("-j CNI-HOSTPORT-DNAT")]) == 2


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_failed_add_takes_back_what_it_did(node: Node, tmp_path: pathlib.Path, backend: str) -> None:
    """The IPv4 rules go when the IPv6 ones cannot be made; the chains that all share stay."""
    broken = 'text=$(cat); case "$text$*" in *fd00*) echo broken >&2; exit 1;; esac; printf "%s\\n" "$text" | exec /usr/sbin/{tool} "$@"\n'
    env = wrapped(tmp_path / "tools", broken, ("ip6tables", "ip6tables-restore", "nft"))
    conf = config(*SIX, ips=(V4, V6), backend=backend)
    error = node.call("ADD", conf, NETNS, env=env).error()
    prefix = {"iptables": "unable to setup DNAT", "nftables": "unable to set up nftables rules for port mappings"}[backend]
    assert error["msg"] == f"{prefix}: broken"
    assert "cid1" not in "".join(node.rules() + node.rules("ip6tables")) + nft(node) + nft(node, "ip6")
    assert CHAIN not in "".join(node.rules() + node.rules("ip6tables"))
    node.call("ADD", conf, NETNS).ok()


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("mappings", [None, []], ids=["no-runtimeConfig", "no-mappings"])
def test_del_without_mappings_and_prev_result(node: Node, backend: str, mappings: list[Any] | None) -> None:
    node.call("ADD", config(*SIX, ips=(V4, V6), backend=backend), NETNS).ok()
    conf = {"cniVersion": "1.0.0", "name": "podnet", "type": "portmap", "backend": backend}
    node.call("DEL", conf if mappings is None else {**conf, "runtimeConfig": {"portMappings": mappings}}).ok()
    assert "cid1" not in "".join(node.rules() + node.rules("ip6tables")) + nft(node) + nft(node, "ip6")


def test_del_finds_what_an_earlier_backend_made(node: Node) -> None:
    node.call("ADD", config(WEB, backend="iptables"), NETNS).ok()
    node.call("DEL", config(WEB, backend="nftables")).ok()
    assert own(node) == []


def test_adds_and_dels_side_by_side(node: Node) -> None:
    """On a fresh node: each shared rule once, every container's chain, and then none."""
    calls = [node.start("ADD", config({**WEB, "hostPort": 9000 + n}), NETNS, container=f"c{n}") for n in range(10)]
    for call in calls:
        node.wait(call).ok()
    rules = node.rules()
    assert len([rule for rule in rules if rule.startswith(":CNI-DN-")]) == 10
    assert len([rule for rule in rules if rule.endswith("-j CNI-HOSTPORT-DNAT")]) == 2
    assert len([rule for rule in rules if rule.endswith("-j CNI-HOSTPORT-MASQ")]) == 1
    calls = [node.start("DEL", config({**WEB, "hostPort": 9000 + n}), container=f"c{n}") for n in (*range(10), 0, 1)]
    for call in calls:
        node.wait(call).ok()
    assert "CNI-DN-" not in "".join(node.rules())


def test_gc_takes_what_no_attachment_claims(node: Node) -> None:
    for network, container in (("podnet", "cid1"), ("podnet", "cid2"), ("other", "cid3")):
        node.call("ADD", config(WEB, ips=(V4, V6), name=network), NETNS, container=container).ok()
    listed = [{"containerID": "cid2", "ifname": "eth0"}]
    conf = {"cniVersion": "1.1.0", "name": "podnet", "type": "portmap", "cni.dev/valid-attachments": listed}
    node.call("GC", conf).ok()
    for tool in ("iptables", "ip6tables"):
        chains = [rule.split()[0].strip(":") for rule in node.rules(tool) if rule.startswith(":CNI-DN")]
        alive = [Attachment("podnet", "cid2", ""), Attachment("other", "cid3", "")]
        assert sorted(chains) == sorted(map(names.dnat_chain, alive))


def test_gc_takes_nftables_rules_of_the_dead(node: Node) -> None:
    """Their comment is but a container id, which other networks have, too."""
    for network, container, address in (
        ("podnet", "cid1", V4),
        ("podnet", "cid2", "10.9.0.3/24"),
        ("other", "cid1", "10.9.0.4/24"),
    ):
        node.call("ADD", config(WEB, ips=(address,), name=network, backend="nftables"), NETNS, container=container).ok()
    listed = [{"containerID": "cid2", "ifname": "eth0"}]
    conf = {"cniVersion": "1.1.0", "name": "podnet", "type": "portmap", "cni.dev/valid-attachments": listed}
    node.call("GC", conf).ok()
    text = node.run("nft", "list", "ruleset").stdout
    assert V4.partition("/")[0] + ":" not in text
    assert "10.9.0.3:" in text
    assert "10.9.0.4:" in text


# -- other ways of iptables


TOOLS = ("iptables", "ip6tables", "iptables-restore", "ip6tables-restore")


@pytest.fixture
def legacy(node: Node, tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment with the older iptables, which takes a lock (here one of its own)."""
    multi = pathlib.Path("/usr/sbin/xtables-legacy-multi")
    if not multi.exists() or node.run(str(multi), "iptables", "-w", "-t", "nat", "-S", check=False).returncode:
        pytest.skip("there is no legacy iptables")
    script = f'XTABLES_LOCKFILE={tmp_path}/lock exec {multi} {{tool}} "$@"\n'
    return wrapped(tmp_path / "legacy", script, TOOLS)


SHARED_RULES = (
    "PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    'POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
    "CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
    'CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',
)


@pytest.mark.parametrize("multi", ["xtables-nft-multi", "xtables-legacy-multi"])
def test_what_somebody_took_of_the_shared_rules_is_made_anew(
    node: Node, legacy: dict[str, str], tmp_path: pathlib.Path, multi: str
) -> None:
    """By the next ADD, which looks at them while it makes its own; the pods that are there keep theirs."""
    env = legacy if multi == "xtables-legacy-multi" else {}

    def saved() -> list[str]:
        lines = node.run(multi, "iptables-save", "-t", "nat").stdout.splitlines()
        return sorted(re.sub(r" \[.*", "", line) for line in lines if not line.startswith("#"))

    node.call("ADD", config(WEB), NETNS, container="c0", env=env).ok()
    before = saved()
    for number, rule in enumerate(SHARED_RULES):
        node.run(multi, "iptables", "-t", "nat", "-D", *shlex.split(rule))
        assert saved() != before
        conf = config({**WEB, "hostPort": 9000 + number})
        node.call("ADD", conf, NETNS, container=f"c{number + 1}", env=env).ok()
        node.call("CHECK", conf, NETNS, container=f"c{number + 1}", env=env).ok()
        node.call("DEL", conf, container=f"c{number + 1}", env=env).ok()
        assert saved() == before, rule
    looks = [each for record in node.journal() if record["verb"] == "ADD" for each in record["commands"] if each.get("look")]
    assert any("-S CNI-HOSTPORT-MASQ" in look.get("stdin", "") for look in looks)


def test_add_waits_for_the_lock_of_iptables(node: Node, legacy: dict[str, str], tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(1.2, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        started = time.monotonic()
        node.call("ADD", config(WEB), NETNS, env=legacy).ok()
        assert time.monotonic() - started > 1
    node.call("CHECK", config(WEB), NETNS, env=legacy).ok()
    saved = node.run("xtables-legacy-multi", "iptables-save", "-t", "nat").stdout
    assert f"-A {CHAIN} -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK" in saved
    node.call("DEL", config(WEB), env=legacy).ok()
    assert CHAIN not in node.run("xtables-legacy-multi", "iptables-save", "-t", "nat").stdout


def test_a_busy_iptables_is_asked_again(node: Node, tmp_path: pathlib.Path) -> None:
    script = f'mkdir {tmp_path}/1 2>/dev/null && exit 4; mkdir {tmp_path}/2 2>/dev/null && exit 4; exec /usr/sbin/{{tool}} "$@"\n'
    node.call("ADD", config(WEB), NETNS, env=wrapped(tmp_path / "busy", script, TOOLS)).ok()
    assert (tmp_path / "2").exists()
    assert len(own(node)) == 4


def test_an_iptables_that_stays_busy_fails_add_and_not_del(node: Node, tmp_path: pathlib.Path) -> None:
    node.call("ADD", config(WEB), NETNS).ok()
    env = wrapped(tmp_path / "busy", "exit 4\n", TOOLS)
    node.call("DEL", config(WEB), env=env).ok()
    assert len(own(node)) == 4
    assert node.call("ADD", config(WEB), NETNS, env=env).error()["code"] == 11
    node.call("DEL", config(WEB)).ok()
    assert own(node) == []


def test_removal_that_fails_does_not_fail_del(node: Node, tmp_path: pathlib.Path) -> None:
    """The table can be read, but not changed."""
    node.call("ADD", config(WEB), NETNS).ok()
    script = 'case "$*" in *-S*) exec /usr/sbin/{tool} "$@";; esac; echo no >&2; exit 4\n'
    node.call("DEL", config(WEB), env=wrapped(tmp_path / "read-only", script, TOOLS)).ok()
    node.call("DEL", config(WEB)).ok()
    assert own(node) == []


# -- what is said is what is done

EXPLAIN = """
import json, os, sys
from ipcni import settings
from ipcni.protocol import skel
from ipcni.shell import show
conf, verb = sys.argv[1:]
env = {"CNI_CONTAINERID": "cid1", "CNI_NETNS": "/run/netns/portmap-needs-none", "CNI_IFNAME": "eth0"}
printer = show.Printer(settings.load(os.environ), {})
with printer.plugin("portmap"):
    skel.dispatch(skel.request("portmap", verb, env, conf.encode()), printer)
print(show.script(printer.blocks))
"""


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_the_explanation_pasted_into_a_shell_does_the_same(node: Node, other_node: Node, backend: str) -> None:
    conf = config(
        *SIX,
        ips=(V4, V6),
        backend=backend,
        conditionsV6=["ip6", "saddr", "!=", "::1"] if backend == "nftables" else ["!", "-s", "::1"],
    )

    def state(each: Node) -> list[str]:
        return [*each.rules(), *each.rules("ip6tables"), nft(each), nft(each, "ip6")]

    for verb in ("ADD", "ADD", "DEL"):
        node.call(verb, conf, NETNS).ok()
        script = other_node.run(sys.executable, "-c", EXPLAIN, json.dumps(conf), verb, env=other_node.env).stdout
        other_node.run("sh", "-eu", "-c", script)
        assert state(other_node) == state(node)


# -- the reference's plugin on the other side (Debian's, which knows iptables only)

reference = pytest.mark.skipif(not (GO / "portmap").exists(), reason="needs the Go portmap")
VARIANTS: list[dict[str, Any]] = [
    {},
    {"snat": False},
    {"markMasqBit": 5},
    {"conditionsV4": ["!", "-s", "198.51.100.0/24"], "conditionsV6": ["-m", "limit", "--limit", "5/sec"]},
    {"externalSetMarkChain": "KUBE-MARK-MASQ"},
]


@reference
@pytest.mark.parametrize("keys", VARIANTS, ids=lambda keys: next(iter(keys), "default"))
def test_the_same_state_as_the_reference(node: Node, other_node: Node, keys: dict[str, Any]) -> None:
    for each, folder in ((node, BIN), (other_node, GO)):
        for tool in ("iptables", "ip6tables"):
            each.run(tool, "-t", "nat", "-N", "KUBE-MARK-MASQ")
        answer = each.call("ADD", config(*SIX, ips=(V4, V6), **keys), NETNS, bin_dir=folder).ok()
        assert answer["ips"] == [{"address": V4}, {"address": V6}]
    for tool in ("iptables", "ip6tables"):
        assert sorted(node.rules(tool)) == sorted(other_node.rules(tool))
        assert own(node, tool) == own(other_node, tool)


@reference
@pytest.mark.parametrize(("adds", "deletes"), [(BIN, GO), (GO, BIN)], ids=["ours-theirs", "theirs-ours"])
@pytest.mark.parametrize("keys", VARIANTS[:4], ids=lambda keys: next(iter(keys), "default"))
def test_either_suite_checks_and_cleans_up_after_the_other(
    node: Node, tmp_path: pathlib.Path, adds: pathlib.Path, deletes: pathlib.Path, keys: dict[str, Any]
) -> None:
    conf = config(*SIX, ips=(V4, V6), **keys)
    node.call("ADD", conf, NETNS, bin_dir=adds).ok()
    # The reference's CHECK before 1.2.0 looks for the IPv4 rules in the IPv6 table as well, if it finds ip6tables.
    env = wrapped(tmp_path / "four", 'exec /usr/sbin/{tool} "$@"\n', ("iptables",))
    env = {"PATH": env["PATH"].partition(":")[0]} if deletes == GO else {}
    node.call("CHECK", config(*SIX, **keys) if deletes == GO else conf, NETNS, bin_dir=deletes, env=env).ok()
    node.call("DEL", conf, bin_dir=deletes).ok()
    assert "CNI-DN-" not in "".join(node.rules() + node.rules("ip6tables"))


@reference
def test_the_longest_names(node: Node) -> None:
    """The comment is cut where iptables cuts it, so either suite finds the rule again."""
    long = "n" * 200
    conf = config(WEB, name=long)
    container = "c" * 120
    node.call("ADD", conf, NETNS, container=container, bin_dir=GO).ok()
    theirs = node.rules()
    node.call("CHECK", conf, NETNS, container=container).ok()
    node.call("DEL", conf, container=container).ok()
    node.call("ADD", conf, NETNS, container=container).ok()
    assert node.rules() == theirs


# -- traffic (sheet 2.9)

SERVER = """
import socket, sys, threading
tcp = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); udp.bind(("::", 53))
def datagrams():
    while True:
        _, peer = udp.recvfrom(99); udp.sendto((sys.argv[1] + " " + peer[0]).encode(), peer)
threading.Thread(target=datagrams, daemon=True).start()
print("ready", flush=True)
while True:
    link, peer = tcp.accept(); link.sendall(peer[0].encode()); link.close()
"""
CLIENT = """
import socket, sys
link = socket.create_connection((sys.argv[1], 8080), 0.4)
print(link.recv(99).decode().removeprefix("::ffff:"))
"""
DATAGRAM = """
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); link.settimeout(0.4)
link.bind(("0.0.0.0", 5555)); link.sendto(b"x", (sys.argv[1], 8053))
print(link.recv(99).decode().split()[0])
"""


def ask(where: Pod, program: str, target: str) -> str:
    """What a client in that namespace hears, or the empty text."""
    return where.run(sys.executable, "-c", program, target, check=False).stdout.strip()


@pytest.fixture
def serve(node: Node) -> Iterator[Callable[..., Pod]]:
    """Makes pods on a bridge with hairpin, each with a server that tells its clients who they seem to be."""
    running: list[subprocess.Popen[str]] = []

    def pod(container: str, *mappings: dict[str, Any], **keys: Any) -> Pod:
        made = node.pod()
        ranges = [[{"subnet": "10.88.3.0/24"}], [{"subnet": "fd00:88:3::/64"}]]
        bridge = {
            "cniVersion": "1.0.0",
            "name": "podnet",
            "type": "bridge",
            "isGateway": True,
            "isDefaultGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": ranges, "dataDir": node.data_dir},
        }
        found = node.call("ADD", bridge, made, container=container).ok()
        node.call("ADD", config(*mappings, prevResult=found, **keys), made, container=container).ok()
        command = ["ip", "netns", "exec", made.name, sys.executable, "-c", SERVER, container]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        return made

    yield pod
    for server in running:
        server.kill()
        server.communicate()


def outside(node: Node) -> Pod:
    """A neighbour of the node."""
    made = node.pod()
    node.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", made.name)
    node.run("ip", "addr", "add", "198.51.100.1/24", "dev", "uplink")
    node.run("ip", "link", "set", "uplink", "up")
    made.run("ip", "addr", "add", "198.51.100.2/24", "dev", "eth0")
    made.run("ip", "link", "set", "eth0", "up")
    return made


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        ({}, ("10.88.3.1", "198.51.100.1", "198.51.100.2", "10.88.3.1", "10.88.3.1")),
        ({"snat": False}, ("", "198.51.100.1", "198.51.100.2", "", "")),
        ({"masqAll": True}, ("10.88.3.1",) * 5),
    ],
    ids=["default", "no-snat", "masqAll"],
)
def test_who_reaches_a_published_port_and_as_whom(
    node: Node, serve: Callable[..., Pod], backend: str, keys: dict[str, Any], seen: tuple[str, ...]
) -> None:
    neighbour = outside(node)
    pod = serve("cid1", WEB, backend=backend, **keys)
    clients: tuple[tuple[Pod, str], ...] = (
        (node, "127.0.0.1"),
        (node, "198.51.100.1"),
        (neighbour, "198.51.100.1"),
        (pod, "10.88.3.1"),
        (pod, "198.51.100.1"),
    )
    assert tuple(ask(where, CLIENT, target) for where, target in clients) == seen
    assert ask(node, CLIENT, "::1") == ""
    deadline = time.monotonic() + 5  # the gateway's IPv6 address is not ours to use before the kernel has probed it
    while not (heard := ask(node, CLIENT, "fd00:88:3::1")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert heard
    assert node.sysctl("net/ipv4/conf/cni0/route_localnet") == ("0" if keys == {"snat": False} else "1")
    assert node.sysctl("net/ipv4/conf/all/route_localnet") == "0"


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_the_second_container_on_a_port_gets_its_traffic_after_the_first(
    node: Node, serve: Callable[..., Pod], backend: str
) -> None:
    neighbour = outside(node)
    serve("first", DNS, backend=backend)
    serve("second", DNS, backend=backend)
    assert ask(neighbour, DATAGRAM, "198.51.100.1") == "first"
    node.call("DEL", config(DNS, backend=backend, prevResult=None), container="first").ok()
    assert ask(neighbour, DATAGRAM, "198.51.100.1") == "second"


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_udp_flows_do_not_outlive_their_container(node: Node, serve: Callable[..., Pod], backend: str) -> None:
    """After DEL nothing is remembered; and ADD forgets what somebody else's DEL has left."""
    neighbour = outside(node)

    def flows() -> list[str]:
        return [
            line for line in node.run("conntrack", "-L", "-p", "udp", check=False).stdout.splitlines() if "dport=8053" in line
        ]

    serve("first", DNS, backend=backend)
    assert ask(neighbour, DATAGRAM, "198.51.100.1") == "first"
    assert flows()
    node.call("DEL", config(DNS, backend=backend, prevResult=None), container="first").ok()
    assert flows() == []
    serve("second", DNS, backend=backend)
    assert ask(neighbour, DATAGRAM, "198.51.100.1") == "second"
    node.run("iptables", "-t", "nat", "-F")
    node.run("nft", "delete", "table", "ip", "cni_hostport", check=False)
    serve("third", DNS, backend=backend)
    assert ask(neighbour, DATAGRAM, "198.51.100.1") == "third"


def test_a_missing_conntrack_does_not_matter(node: Node, tmp_path: pathlib.Path) -> None:
    env = wrapped(tmp_path / "tools", "exit 127\n", ("conntrack",))
    node.call("ADD", config(DNS, ips=(V4, V6)), NETNS, env=env).ok()
    node.call("DEL", config(DNS), env=env).ok()
    assert own(node) == []


def test_old_results_are_handed_on_in_their_own_form(node: Node) -> None:
    prev = {"cniVersion": "0.2.0", "ip4": {"ip": V4, "routes": [{"dst": "0.0.0.0/0"}]}, "dns": {}}
    answer = node.call("ADD", config(WEB, cniVersion="0.2.0", prevResult=prev), NETNS).ok()
    assert answer == json.loads(json.dumps(prev))
    assert len(own(node)) == 4
