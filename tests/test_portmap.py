"""What portmap plans, on a made-up node."""

import contextlib
import json
import pathlib
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from ipcni import names
from ipcni.errors import NOT_AVAILABLE, TRY_AGAIN, CniError
from ipcni.model import Attachment, Done, Netns
from ipcni.parts import portmap_conf
from ipcni.plugins import portmap
from ipcni.protocol import skel
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, IpConfig, Result
from ipcni.settings import Settings
from tests.nowhere import Nowhere

CHAIN = names.dnat_chain(Attachment("podnet", "cid1", ""))
WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
DNS = {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}
V4, V6 = "10.0.0.2/24", "2001:db8:1::2/64"
SHARED = """-P PREROUTING ACCEPT
-N CNI-HOSTPORT-DNAT
-N CNI-HOSTPORT-MASQ
-N CNI-HOSTPORT-SETMARK
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
"""
ELSEWHERE = """-N CNI-DN-other
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"podnet\\" id: \\"old\\"" -m multiport --dports 8080 -j CNI-DN-other
-A CNI-DN-other -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.9:80
"""


class Made(Nowhere):
    """`answers` to questions by how these begin; everything else is fine and empty. `tools` are there."""

    def __init__(
        self,
        answers: dict[str, str | Done] | None = None,
        settings: Settings | None = None,
        *,
        tools: str = "iptables ip6tables nft conntrack",
    ) -> None:
        super().__init__(settings)
        self.answers = answers or {}
        self.tools = tools.split()
        self.asked: list[str] = []
        self.notes: list[str] = []
        self.left: list[str] = []
        self.locks: list[str] = []

    def _ask(self, argv: tuple[str, ...], netns: Netns | None, stdin: str = "") -> Done:  # noqa: ARG002
        line = shlex.join(argv)
        self.asked.append(line)
        for start, answer in self.answers.items():
            if line.startswith(start):
                return answer if isinstance(answer, Done) else Done(0, answer, "", 0)
        if argv[0] == "nft":
            return Done(1, "", "Error: No such file or directory", 0)
        return Done(0, "", "", 0)

    def has(self, tool: str) -> bool:
        return tool in self.tools

    def note(self, text: str) -> None:
        self.notes.append(text)

    def residue(self, what: Iterable[object]) -> None:
        self.left += map(str, what)

    @contextlib.contextmanager
    def locked(self, path: str, *, mode: int = 0o600, keep: bool = False) -> Iterator[None]:  # noqa: ARG002
        self.locks.append(path)
        yield

    @property
    def commands(self) -> list[str]:
        return [shlex.join(step.argv) for step in self.planned]

    def added(self, chain: str, tool: str = "iptables") -> list[str]:
        """The rules that are added to a chain, without what they all begin with."""
        start = f"{tool} -w 10 -t nat -A {chain} "
        return [command.removeprefix(start) for command in self.commands if command.startswith(start)]


def request(
    *mappings: dict[str, Any],
    verb: str = "ADD",
    ips: tuple[str, ...] = (V4,),
    prev: Any = ...,
    container: str = "cid1",
    **keys: Any,
) -> Request:
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "podnet", "type": "portmap", **keys}
    if mappings:
        conf["runtimeConfig"] = {"portMappings": list(mappings)}
    conf["prevResult"] = {"ips": [{"address": ip} for ip in ips]} if prev is ... else prev
    env = {"CNI_CONTAINERID": container, "CNI_NETNS": "/run/netns/p", "CNI_IFNAME": "eth0"}
    return skel.request("portmap", verb, env, json.dumps(conf).encode())


def refused(req: Request, host: Nowhere | None = None) -> CniError:
    host = host or Made()
    with pytest.raises(CniError) as caught:
        portmap.add(req, host)
    assert not host.planned
    return caught.value


# -- which addresses (sheet 2.2)


def test_the_first_address_of_each_family_on_the_calls_own_interface() -> None:
    links = (Interface(name="eth0"), Interface(name="eth0", sandbox="/run/netns/p"))
    listed = (("10.0.0.1/24", 0), (V6, 1), ("10.0.0.2/24", 1), ("10.0.0.3/24", 1))
    prev = Result(interfaces=links, ips=tuple(IpConfig(address=ip, interface=i) for ip, i in listed))
    found = portmap_conf.published(request(WEB), portmap_conf.Conf(), prev)
    assert [ports.address.with_prefixlen for ports in found] == ["10.0.0.2/24", V6]


@pytest.mark.parametrize("index", [None, 7, -1])
def test_an_address_of_no_listed_interface_is_accepted(index: int | None) -> None:
    prev = Result(interfaces=(Interface(name="other"),), ips=(IpConfig(address=V4, interface=index),))
    (found,) = portmap_conf.published(request(WEB), portmap_conf.Conf(), prev)
    assert found.family == 4


# -- what is refused (sheet 2.1, 2.3)


@pytest.mark.parametrize(
    ("change", "msg"),
    [
        ({"hostPort": 0}, "Invalid host port number: 0"),
        ({"hostPort": 0, "containerPort": 0}, "Invalid container port number: 0"),
        ({"hostPort": 65536}, "Invalid host port number: 65536"),
        ({"containerPort": 65536}, "Invalid container port number: 65536"),
        ({"protocol": ""}, 'unknown protocol "" specified'),
        ({"protocol": "tcp -j ACCEPT"}, 'unknown protocol "tcp -j ACCEPT" specified'),
        ({"protocol": "-j"}, 'unknown protocol "-j" specified'),
    ],
)
def test_a_mapping_that_cannot_be_names_its_key(change: dict[str, Any], msg: str) -> None:
    error = refused(request(DNS, {**WEB, **change}))
    assert error.msg == f"failed to parse config: {msg}"
    assert "runtimeConfig.portMappings[1]" in error.details


@pytest.mark.parametrize(
    ("keys", "msg"),
    [
        ({"markMasqBit": 32}, "MasqMarkBit must be between 0 and 31"),
        ({"markMasqBit": -1}, "MasqMarkBit must be between 0 and 31"),
        ({"markMasqBit": 5, "externalSetMarkChain": "X"}, "Cannot specify externalSetMarkChain and markMasqBit"),
        ({"backend": "foo"}, 'unrecognized backend "foo"'),
        ({"backend": ""}, 'unrecognized backend ""'),
        (
            {"backend": "iptables", "conditionsV4": ["ip", "saddr", "1.2.3.4"]},
            "iptables backend was requested but configuration contains nftables-specific options [conditionsV4]",
        ),
        (
            {"backend": "nftables", "conditionsV4": ["-s", "::1"], "conditionsV6": ["!", "-s"], "externalSetMarkChain": "X"},
            (
                "nftables backend was requested but configuration contains iptables-specific options "
                "[externalSetMarkChain conditionsV4 conditionsV6]"
            ),
        ),
    ],
)
def test_options_that_contradict_each_other(keys: dict[str, Any], msg: str) -> None:
    assert refused(request(WEB, **keys)).msg == f"failed to parse config: {msg}"


@pytest.mark.parametrize("word", ["1.2.3.4; flush ruleset", "a\nb", "# rest"])
def test_no_condition_ends_its_nft_rule(word: str) -> None:
    error = refused(request(WEB, backend="nftables", conditionsV6=["ip6", "saddr", word]))
    assert "conditionsV6" in error.msg


def test_a_line_break_in_a_condition_is_refused_by_the_iptables_backend_too() -> None:
    with pytest.raises(CniError, match="line break"):
        portmap.add(request(WEB, backend="iptables", conditionsV4=["-s", "1.2.3.4\nx"]), host := Made())
    assert not host.added(CHAIN)


def test_a_condition_stays_the_words_it_is() -> None:
    hostile = ["-m", "set", "--match-set", "$(reboot); `x` 'y' \"z\""]
    portmap.add(request(WEB, conditionsV4=hostile), host := Made())
    entry = next(step for step in host.planned if step.argv[-1] == CHAIN and "--dports" in step.argv)
    assert entry.argv[-6:-2] == tuple(hostile)


def test_conditions_without_a_first_word_belong_to_neither_backend() -> None:
    for backend in ("iptables", "nftables"):
        portmap.add(request(WEB, backend=backend, conditionsV4=[""]), Made())


def test_it_stands_behind_another_plugin() -> None:
    assert refused(request(WEB, prev=None)).msg == "must be called as chained plugin"


def test_without_mappings_nothing_is_asked_locked_or_done() -> None:
    host = Made()
    assert portmap.add(request(), host).ips[0].address == V4
    assert (host.asked, host.locks, host.planned) == ([], [], [])


# -- the tool


@pytest.mark.parametrize(
    ("tools", "backend"), [("iptables nft", "iptables"), ("iptables", "iptables"), ("nft", "nftables"), ("", "iptables")]
)
def test_iptables_unless_nft_is_all_there_is(tools: str, backend: str) -> None:
    assert portmap_conf.automatic(Made(tools=tools)) == backend


def test_a_missing_tool_is_named_before_anything_is_done() -> None:
    error = refused(request(WEB, ips=(V4, V6)), Made(tools="iptables"))
    assert error.msg == 'failed to open iptables: exec: "ip6tables": executable file not found in $PATH'
    assert "could not find nftables binary" in refused(request(WEB, backend="nftables"), Made(tools="iptables")).msg


@pytest.mark.parametrize(("tools", "backend"), [("", None), ("iptables", "nftables"), ("nft", "iptables")])
def test_status_without_a_tool(tools: str, backend: str | None) -> None:
    with pytest.raises(CniError) as caught:
        portmap.status(request(verb="STATUS", backend=backend), Made(tools=tools))
    assert caught.value.code == NOT_AVAILABLE


def test_status_with_one() -> None:
    portmap.status(request(verb="STATUS"), Made({"nft --json --terse list ruleset": '{"nftables": []}'}, tools="nft"))


# -- iptables rules (sheet 2.4; the text itself is compared on a kernel)

EIGHT = (
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8081, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8080, "containerPort": 81, "protocol": "udp"},
    {"hostPort": 8082, "containerPort": 82, "protocol": "udp"},
    {"hostPort": 8083, "containerPort": 83, "protocol": "tcp", "hostIP": "192.168.0.2"},
    {"hostPort": 8084, "containerPort": 84, "protocol": "tcp", "hostIP": "0.0.0.0"},
    {"hostPort": 8085, "containerPort": 85, "protocol": "tcp", "hostIP": "2001:db8:a::1"},
    {"hostPort": 8086, "containerPort": 86, "protocol": "tcp", "hostIP": "::"},
)


def test_each_mapping_has_its_rules_in_its_family() -> None:
    portmap.add(request(*EIGHT, ips=(V4, V6)), host := Made())
    for tool, number in (("iptables", 18), ("ip6tables", 12)):
        assert len(host.added(CHAIN, tool)) == number
        entries = host.added("CNI-HOSTPORT-DNAT", tool)
        ports = [shlex.split(entry)[shlex.split(entry).index("--dports") + 1] for entry in entries]
        assert ports == ["8080,8081,8083,8084,8085,8086", "8080,8082"]


def test_without_snat_there_is_only_dnat() -> None:
    portmap.add(request(*EIGHT, snat=False), host := Made())
    assert len(host.added(CHAIN)) == 6
    assert not any("SETMARK" in command or "MASQ" in command for command in host.commands)


@pytest.mark.parametrize(("bit", "mark"), [(None, "0x2000"), (0, "0x1"), (5, "0x20"), (31, "0x80000000")])
def test_the_mark_is_a_bit(bit: int | None, mark: str) -> None:
    portmap.add(request(WEB, markMasqBit=bit), host := Made())
    (rule,) = host.added("CNI-HOSTPORT-SETMARK")
    assert rule.endswith(f"--set-xmark {mark}/{mark}")


def test_a_mark_chain_of_somebody_else_is_not_touched() -> None:
    portmap.add(request(WEB, externalSetMarkChain="PLZ-SET-MARK"), host := Made())
    assert [rule for rule in host.added(CHAIN) if rule.endswith("-j PLZ-SET-MARK")]
    assert not any("CNI-HOSTPORT-SETMARK" in command or "MASQ" in command for command in host.commands)


def test_fifteen_ports_are_one_rule() -> None:
    mappings = [{"hostPort": 9000 + n, "containerPort": 1 + n, "protocol": "udp" if n % 2 else "tcp"} for n in range(34)]
    portmap.add(request(*mappings), host := Made())
    entries = [shlex.split(entry) for entry in host.added("CNI-HOSTPORT-DNAT")]
    found = [(entry[1], entry[entry.index("--dports") + 1]) for entry in entries]
    tcp, udp = ([str(9000 + n) for n in range(start, 34, 2)] for start in (0, 1))
    assert found == [
        ("tcp", ",".join(tcp[:15])),
        ("tcp", ",".join(tcp[15:])),
        ("udp", ",".join(udp[:15])),
        ("udp", ",".join(udp[15:])),
    ]


def test_a_host_ip_that_is_none_counts_as_ipv6() -> None:
    garbage = {**WEB, "hostIP": "garbage"}
    portmap.add(request(garbage), host := Made())
    assert host.added(CHAIN) == []
    assert "host/network `garbage' not found" in refused(request(garbage, ips=(V4, V6))).msg


def test_a_complete_node_is_looked_at_once() -> None:
    """In the steady state: one look, one transaction; nobody else's chain is touched, and no shared lock is taken."""
    host = Made({"iptables": SHARED, "ip -4": "[]"})
    portmap.add(request(WEB), host)
    assert host.asked == ["iptables -w 10 -t nat -S", "ip -4 -j route get 10.0.0.2"]
    assert {step.argv[6] for step in host.planned if step.argv[0] == "iptables"} == {CHAIN, "CNI-HOSTPORT-DNAT"}
    assert not any(step.unless for step in host.planned)
    assert not any(lock.startswith("chains-") for lock in host.locks)


def test_only_what_is_missing_of_the_shared_chains_is_made() -> None:
    there = SHARED.replace("-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n", "")
    host = Made({"iptables": there})
    portmap.add(request(WEB), host)
    assert host.commands[0] == "iptables -w 10 -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT"
    assert host.commands[1].endswith(f"-N {CHAIN}")
    assert "chains-nat-4" in host.locks


def test_an_earlier_try_is_replaced() -> None:
    jump = f'-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"podnet\\" id: \\"cid1\\"" -m multiport --dports 1 -j {CHAIN}'
    host = Made({"iptables": f"{SHARED}-N {CHAIN}\n{jump}\n"})
    portmap.add(request(WEB), host)
    assert host.commands[0].startswith("iptables -w 10 -t nat -D CNI-HOSTPORT-DNAT -p tcp")
    assert host.commands[1].endswith(f"-F {CHAIN}")
    assert host.planned[1].undo[-2:] == ("-X", CHAIN)


def test_a_port_that_another_container_has_is_noted(tmp_path: pathlib.Path) -> None:
    """Whatever the rules are made with; until its DEL."""
    settings = Settings(run_dir=str(tmp_path))
    claim = tmp_path / "hostports" / "4-tcp-8080-any"
    portmap.add(request(WEB), Made({"iptables": SHARED}, settings))
    claim.parent.mkdir()
    claim.write_text("old in network podnet")
    for backend in ("iptables", "nftables"):
        host = Made({"iptables": SHARED}, settings)
        portmap.add(request(WEB, backend=backend), host)
        assert host.notes == ["host port 8080/tcp belongs to old in network podnet until that container's DEL"]
        portmap.delete(request(WEB, verb="DEL", backend=backend), host)
        assert f"rm -f {claim}" not in host.commands
    portmap.add(request({**WEB, "protocol": "udp"}), other := Made({"iptables": SHARED}, settings))
    assert other.notes == []
    claim.write_text("cid1 in network podnet")
    portmap.add(request(WEB), other)
    assert other.notes == []
    portmap.delete(request(WEB, verb="DEL"), other)
    assert f"rm -f {claim}" in other.commands


def test_a_busy_iptables_is_a_reason_to_try_again() -> None:
    host = Made({"iptables": Done(4, "", "Another app is currently holding the xtables lock.", 0)})
    host.live = True
    error = refused(request(WEB), host)
    assert error.code == TRY_AGAIN
    assert "xtables lock" in error.msg


def test_upper_case_protocols_are_the_same() -> None:
    portmap.add(request({**WEB, "protocol": "TCP"}), host := Made())
    assert all("-p tcp -m tcp" in rule for rule in host.added(CHAIN))


def test_a_table_is_read_word_by_word() -> None:
    line = r'-A X -m comment --comment "a \"b\" \\ c" -m comment --comment "" ! -s 1.2.3.4/32 -j Y'
    found = Made({"iptables": f"-P INPUT ACCEPT\n-N X\n{line}\n"}).facts.rules(4, "nat")
    assert found.chains == {"INPUT", "X"}
    words = ("-A", "X", "-m", "comment", "--comment", 'a "b" \\ c', "-m", "comment", "--comment", "", "!", "-s", "1.2.3.4/32")
    assert found.rules == ((*words, "-j", "Y"),)


# -- the node's own 127.0.0.1


@pytest.mark.parametrize(("snat", "expected"), [(True, ["sysctl -qw net/ipv4/conf/no.such/route_localnet=1"]), (False, [])])
def test_the_link_to_the_container_lets_loopback_out(snat: bool, expected: list[str]) -> None:
    host = Made({"ip -4": '[{"dst": "10.0.0.2", "dev": "no.such"}]'})
    portmap.add(request(WEB, snat=snat), host)
    assert [command for command in host.commands if command.startswith("sysctl")] == expected


def test_an_explanation_knows_the_link_that_is_yet_to_be_made() -> None:
    prev = {
        "interfaces": [{"name": "no-such-br"}, {"name": "eth0", "sandbox": "/run/netns/p"}],
        "ips": [{"address": V4, "interface": 1}],
    }
    portmap.add(request(WEB, prev=prev), host := Made({"ip -4": '[{"dst": "10.0.0.2", "dev": "uplink"}]'}))
    assert host.commands[-1] == "sysctl -qw net/ipv4/conf/no-such-br/route_localnet=1"


# -- the way back


def test_del_finds_the_chain_by_its_name() -> None:
    """Without mappings, prevResult and namespace."""
    jump = f'-A CNI-HOSTPORT-DNAT -p udp -m comment --comment "x" -m multiport --dports 8053 -j {CHAIN}\n'
    rule = f"-A {CHAIN} -p udp -m udp --dport 8053 -j DNAT --to-destination 10.0.0.2:53\n"
    host = Made({"iptables": SHARED + ELSEWHERE + f"-N {CHAIN}\n" + jump + rule})
    portmap.delete(request(verb="DEL", prev=None), host)
    assert host.commands == [
        f"iptables -w 10 -t nat -D CNI-HOSTPORT-DNAT -p udp -m comment --comment x -m multiport --dports 8053 -j {CHAIN}",
        f"iptables -w 10 -t nat -F {CHAIN}",
        f"iptables -w 10 -t nat -X {CHAIN}",
        "conntrack -D -f ipv4 -p udp --orig-port-dst 8053 --reply-src 10.0.0.2",
    ]
    assert host.asked == [
        f"iptables -w 10 -t nat -S {CHAIN}",
        "iptables -w 10 -t nat -S",
        f"ip6tables -w 10 -t nat -S {CHAIN}",
    ]


def test_del_takes_the_legacy_chain_along() -> None:
    old = names.old_snat_chain(Attachment("podnet", "cid1", ""))
    host = Made({"iptables": f"-N {CHAIN}\n-N {old}\n-N CNI-HOSTPORT-SNAT\n-A CNI-HOSTPORT-SNAT -s 1.2.3.4/32 -j {old}\n"})
    portmap.delete(request(verb="DEL"), host)
    assert host.commands == [
        f"iptables -w 10 -t nat -F {CHAIN}",
        f"iptables -w 10 -t nat -X {CHAIN}",
        f"iptables -w 10 -t nat -D CNI-HOSTPORT-SNAT -s 1.2.3.4/32 -j {old}",
        f"iptables -w 10 -t nat -F {old}",
        f"iptables -w 10 -t nat -X {old}",
    ]


def test_del_of_nothing_does_nothing() -> None:
    host = Made({"iptables": SHARED, "ip6tables": SHARED})
    portmap.delete(request(WEB, verb="DEL"), host)
    assert host.planned == []
    assert host.left == []


def test_del_looks_for_rules_of_the_other_backend_where_its_own_has_none() -> None:
    portmap.delete(request(WEB, verb="DEL", backend="nftables"), host := Made({"iptables": SHARED + f"-N {CHAIN}\n"}))
    assert f"iptables -w 10 -t nat -X {CHAIN}" in host.commands


def test_del_succeeds_where_nothing_can_be_known() -> None:
    host = Made({"iptables": Done(4, "", "lock", 0), "ip6tables": Done(3, "", "no table", 0)})
    portmap.delete(request(WEB, verb="DEL"), host)
    assert host.left == ["iptables -t nat -S: lock", "ip6tables -t nat -S: no table"]
    portmap.delete(request(WEB, verb="DEL"), Made(tools=""))


@pytest.mark.parametrize(
    "keys", [{"backend": "foo"}, {"markMasqBit": "x"}, {"runtimeConfig": {"portMappings": 5}}, {"prev": {"ips": 1}}]
)
def test_del_succeeds_with_a_configuration_that_add_refuses(keys: dict[str, Any]) -> None:
    portmap.delete(request(verb="DEL", **keys), Made())


def nft_table(*rules: dict[str, Any]) -> str:
    where = {"family": "ip", "table": "cni_hostport"}
    chains = [{"chain": {**where, "name": name}} for name in ("hostports", "hostip_hostports", "masquerading")]
    table = {"table": {"family": "ip", "name": "cni_hostport"}}
    return json.dumps({"nftables": [{"metainfo": {}}, table, *chains, *({"rule": {**where, **rule}} for rule in rules)]})


def nft_dnat(handle: int, comment: str, to: str, port: int = 8080) -> dict[str, Any]:
    match = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": port}}
    return {"chain": "hostports", "handle": handle, "comment": comment, "expr": [match, {"dnat": {"addr": to, "port": 80}}]}


def test_a_container_on_two_networks_keeps_the_other_ones_nft_rules() -> None:
    """Their comment is the same: only where they lead tells them apart."""
    there = nft_table(nft_dnat(3, "cid1", "10.0.0.2"), nft_dnat(4, "cid1", "10.9.9.9"), nft_dnat(5, "cid2", "10.0.0.3"))
    portmap.delete(request(WEB, verb="DEL", backend="nftables"), host := Made({"nft --json list table ip ": there}))
    assert host.commands == ["nft delete rule ip cni_hostport hostports handle 3"]
    portmap.delete(request(WEB, verb="DEL", backend="nftables", prev=None), host := Made({"nft --json list table ip ": there}))
    assert [command[-1] for command in host.commands] == ["3", "4"]


def test_an_earlier_nft_try_is_replaced(tmp_path: pathlib.Path) -> None:
    """A note tells that there was one; without, nobody asks for all the rules."""
    there: dict[str, str | Done] = {
        "nft --json list table ip ": nft_table(nft_dnat(3, "cid1", "10.0.0.2"), nft_dnat(5, "cid2", "10.0.0.3"))
    }
    settings = Settings(run_dir=str(tmp_path))
    portmap.add(request(WEB, backend="nftables"), host := Made(there, settings))
    assert not [line for line in host.asked if line.startswith("nft")]
    note = tmp_path / "attachments" / "podnet" / "portmap" / "cid1:eth0"
    note.parent.mkdir(parents=True)
    note.write_text("10.0.0.2\n")
    portmap.add(request(WEB, backend="nftables"), host := Made(there, settings))
    assert "nft delete rule ip cni_hostport hostports handle 3" in host.commands
    assert len(host.undoing) == 1


# -- CHECK and GC


def test_check_needs_prev_result() -> None:
    with pytest.raises(CniError, match="Required prevResult missing"):
        portmap.check(request(WEB, verb="CHECK", prev=None), Made())


def test_check_without_mappings_looks_at_nothing() -> None:
    portmap.check(request(verb="CHECK"), host := Made())
    assert host.asked == []


def test_check_names_what_is_missing() -> None:
    with pytest.raises(CniError) as caught:
        portmap.check(request(WEB, verb="CHECK"), Made({"iptables": SHARED}))
    assert caught.value.msg == f"could not check ipv4 dnat: chain {CHAIN} not found in iptables table nat"
    host = Made({"iptables -w 10 -t nat -S": SHARED + f"-N {CHAIN}\n", "iptables -w 10 -t nat -C": Done(1, "", "", 0)})
    with pytest.raises(CniError) as caught:
        portmap.check(request(WEB, verb="CHECK"), host)
    assert f"in chain {CHAIN} not found in table nat" in caught.value.msg
    assert caught.value.details.endswith("--to-destination 10.0.0.2:80")


def test_gc_takes_the_chains_of_this_networks_dead() -> None:
    there = SHARED + ELSEWHERE + ELSEWHERE.replace("podnet", "othernet").replace("CNI-DN-other", "CNI-DN-foreign")
    keys: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "cid1", "ifname": "eth0"}]}
    portmap.gc(request(verb="GC", prev=None, **keys), host := Made({"iptables": there}))
    assert [command.split()[5] for command in host.commands] == ["-D", "-F", "-X"]
    assert all("CNI-DN-other" in command for command in host.commands)
    keys = {"cni.dev/valid-attachments": [{"containerID": "old", "ifname": "eth0"}]}
    portmap.gc(request(verb="GC", prev=None, **keys), host := Made({"iptables": there}))
    assert host.planned == []


def test_gc_without_a_list_does_nothing() -> None:
    portmap.gc(request(verb="GC", prev=None), host := Made({"iptables": SHARED + ELSEWHERE}))
    assert host.planned == []
