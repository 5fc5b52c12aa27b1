"""host-local's leases: which address, which bytes, who holds what (IPAM sheet 2, cases 11 to 32; USERS 3, 16). Needs no root."""

import itertools
import json
import os
import pathlib
import stat
from typing import Any

import pytest

from ipcni.ipam import leases
from ipcni.protocol import skel
from ipcni.shell.run import Runner


class Network:
    """A lease directory, and host-local called on it as by a runtime."""

    def __init__(self, folder: pathlib.Path, **ipam: Any) -> None:
        self.data_dir = folder / "networks"
        self.folder = self.data_dir / "net"
        self.settings = {
            "IPCNI_CONFIG": str(folder / "none"),
            "IPCNI_STATE_DIR": str(folder / "state"),
            "IPCNI_RUN_DIR": str(folder / "run"),
            "IPCNI_LOG_DIR": str(folder / "log"),
        }
        self.ipam = {"type": "host-local", "dataDir": str(self.data_dir), **ipam}

    def call(self, verb: str, container: str = "cid1", ifname: str = "eth0", args: str = "", /, **keys: Any) -> dict[str, Any]:
        """The answer (empty for verbs that have none), or the error object under "error"."""
        conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": self.ipam, **keys}
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": "/run/netns/none",
            "CNI_PATH": "/nowhere",
            "CNI_ARGS": args,
            **self.settings,
        }
        answer = skel.handle("host-local", env, lambda: json.dumps(conf).encode(), Runner)
        body = json.loads(answer.stdout) if answer.stdout else {}
        return {"error": body} if answer.status else body

    def add(self, container: str = "cid1", ifname: str = "eth0", args: str = "", /, **keys: Any) -> list[str]:
        """The addresses given, without their prefix lengths."""
        answer = self.call("ADD", container, ifname, args, **keys)
        assert "error" not in answer, answer
        return [ip["address"].partition("/")[0] for ip in answer["ips"]]

    def told(self, verb: str, container: str = "cid1", ifname: str = "eth0", args: str = "", /, **keys: Any) -> str:
        """The text of the error that the call ends with."""
        return str(self.call(verb, container, ifname, args, **keys)["error"]["msg"])

    def ok(self, verb: str, container: str = "cid1", ifname: str = "eth0", /, **keys: Any) -> None:
        assert self.call(verb, container, ifname, **keys) == {}

    def files(self) -> dict[str, bytes]:
        """All files but the lock, with their bytes."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "lock"
        }

    def leases(self) -> list[str]:
        return [name for name in self.files() if not name.startswith("last_reserved_ip")]

    def write(self, name: str, content: bytes | str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def net(tmp_path: pathlib.Path) -> Network:
    return Network(tmp_path, subnet="10.1.2.0/29")


def network(tmp_path: pathlib.Path, *subnets: str, **ipam: Any) -> Network:
    """One range set of these subnets."""
    return Network(tmp_path, ranges=[[{"subnet": subnet} for subnet in subnets]], **ipam)


# -- the files


def test_bytes_and_modes(tmp_path: pathlib.Path) -> None:
    """As the Go plugin writes them (case 24, IPAM sheet 2.4)."""
    net = Network(tmp_path, ranges=[[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]])
    assert net.add("dummy") == ["10.1.2.2", "2001:db8:1::2"]
    assert net.files() == {
        "10.1.2.2": b"dummy\r\neth0",
        "2001:db8:1::2": b"dummy\r\neth0",
        "last_reserved_ip.0": b"10.1.2.2",
        "last_reserved_ip.1": b"2001:db8:1::2",
    }
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in net.folder.iterdir()}
    assert modes.pop("lock") == 0o750
    assert set(modes.values()) == {0o600}
    assert (net.folder / "lock").stat().st_size == 0
    net.ok("DEL", "dummy")
    assert list(net.files()) == ["last_reserved_ip.0", "last_reserved_ip.1"], "pointers stay"


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o755), (0o022, 0o755), (0o077, 0o700)])
def test_nobody_else_may_write_there(net: Network, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        net.add()
    finally:
        os.umask(before)
    assert stat.S_IMODE(net.folder.stat().st_mode) == stat.S_IMODE(net.data_dir.stat().st_mode) == mode
    assert stat.S_IMODE((net.folder / "10.1.2.2").stat().st_mode) == 0o600


def test_the_result(tmp_path: pathlib.Path) -> None:
    """Routes as they are, in order, gateway always, no interface, dns from resolvConf only (cases 24, 32)."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(
        "  nameserver 192.0.2.53 ignored\n; no\n# no\nsearch a b\nnameserver\noptions x\nsearch c\noptions y z\ndomain d\nsortlist 1 2\n"
    )
    routes = [
        {"dst": "0.0.0.0/0"},
        {"dst": "::/0"},
        {"dst": "0.0.0.0/0", "gw": "10.1.2.5", "mtu": 1400, "advmss": 1300, "priority": 7, "table": 9, "scope": 0},
        {"dst": "1.2.3.4/24", "gw": ""},
    ]
    net = Network(tmp_path, subnet="10.1.2.0/24", routes=routes, resolvConf=str(resolv))
    answer = net.call("ADD", dns={"nameservers": ["203.0.113.1"]})
    assert answer == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.2.2/24", "gateway": "10.1.2.1"}],
        "routes": [*routes[:3], {"dst": "1.2.3.4/24"}],
        "dns": {"nameservers": ["192.0.2.53"], "domain": "d", "search": ["a", "b", "c"], "options": ["x", "y", "z"]},
    }


def test_a_missing_resolv_conf(net: Network) -> None:
    net.ipam["resolvConf"] = "/nope"
    assert net.told("ADD") == "open /nope: no such file or directory"
    assert not net.folder.exists()
    net.ok("DEL")


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_versions_that_tell_the_family(net: Network, version: str) -> None:
    answer = net.call("ADD", cniVersion=version)
    assert answer["ips"] == [{"version": "4", "address": "10.1.2.2/29", "gateway": "10.1.2.1"}]


# -- which address


@pytest.mark.parametrize(
    ("subnets", "taken", "pointer", "expected"),
    [
        (["10.0.0.0/29"], [], "", "10.0.0.2"),
        (["10.0.0.0/30"], [], "", "10.0.0.2"),
        (["2001:db8:1::/64"], [], "", "2001:db8:1::2"),
        (["10.0.0.0/29"], ["10.0.0.2"], "", "10.0.0.3"),
        (["10.0.0.0/29"], [], "10.0.0.5", "10.0.0.6"),
        (["10.0.0.0/29"], ["10.0.0.4", "10.0.0.5"], "10.0.0.3", "10.0.0.6"),
        (["10.0.0.0/29"], ["10.0.0.6"], "10.0.0.5", "10.0.0.2"),
        (["10.0.0.0/29"], [], "10.0.0.128", "10.0.0.2"),
        (["10.0.0.0/29"], [], "10.0.0.5\n", "10.0.0.2"),
        (["10.0.0.0/29"], [], "rubbish", "10.0.0.2"),
        (["10.0.0.0/29"], [f"10.0.0.{number}" for number in (2, 4, 5, 6)], "10.0.0.3", "10.0.0.3"),
        (["10.0.0.0/30", "10.0.1.0/30"], [], "", "10.0.0.2"),
        (["10.0.0.0/30", "10.0.1.0/30"], [], "10.0.0.2", "10.0.1.2"),
        (["10.0.0.0/30", "10.0.1.0/30", "10.0.2.0/30"], [], "10.0.2.2", "10.0.0.2"),
    ],
)
def test_round_robin(tmp_path: pathlib.Path, subnets: list[str], taken: list[str], pointer: str, expected: str) -> None:
    """Set, taken addresses, pointer, and what comes next (cases 11 to 14, 30)."""
    net = network(tmp_path, *subnets)
    for address in taken:
        net.write(address, "other\r\neth0")
    if pointer:
        net.write("last_reserved_ip.0", pointer)
    assert net.add() == [expected]
    assert net.files()["last_reserved_ip.0"] == expected.encode()


def test_five_pods_in_a_small_network(net: Network) -> None:
    """The broadcast address is never given (case 15)."""
    assert [net.add(f"c{number}")[0] for number in range(5)] == [f"10.1.2.{number}" for number in (2, 3, 4, 5, 6)]
    error = net.call("ADD", "c6")["error"]
    assert error["msg"] == "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6"
    assert str(net.folder) in error["details"]


def test_an_address_is_not_used_again_at_once(net: Network) -> None:
    assert net.add() == ["10.1.2.2"]
    net.ok("DEL")
    assert net.add() == ["10.1.2.3"]


def test_a_single_address(tmp_path: pathlib.Path) -> None:
    net = Network(tmp_path, subnet="10.1.2.0/24", rangeStart="10.1.2.9", rangeEnd="10.1.2.9")
    assert net.add() == ["10.1.2.9"]
    assert "no IP addresses available" in net.told("ADD", "cid2")
    net.ok("DEL")
    assert net.add("cid2") == ["10.1.2.9"]


def test_the_order_of_range_sets(tmp_path: pathlib.Path) -> None:
    """Runtime ranges, the old-style one, the configured ones (case 9): this numbers the pointers."""
    net = Network(tmp_path, subnet="10.2.0.0/24", ranges=[[{"subnet": "10.3.0.0/24"}]])
    given = net.add(runtimeConfig={"ipRanges": [[{"subnet": "10.1.0.0/24"}]]})
    assert given == ["10.1.0.2", "10.2.0.2", "10.3.0.2"]
    assert {name: text for name, text in net.files().items() if name.startswith("last")} == {
        "last_reserved_ip.0": b"10.1.0.2",
        "last_reserved_ip.1": b"10.2.0.2",
        "last_reserved_ip.2": b"10.3.0.2",
    }


def test_the_worked_example(net: Network) -> None:
    """IPAM sheet 2.8."""
    assert net.add("a", "eth0") == ["10.1.2.2"]
    assert net.add("a", "eth1") == ["10.1.2.3"]
    told = net.told("ADD", "a", "eth0")
    assert told == "failed to allocate for range 0: 10.1.2.2 has been allocated to a, duplicate allocation is not allowed"
    assert net.add("a", "eth0", "IP=10.1.2.5") == ["10.1.2.5"]
    assert net.files()["last_reserved_ip.0"] == b"10.1.2.5"
    asked = {"args": {"cni": {"ips": ["10.1.2.6"]}}, "runtimeConfig": {"ips": ["10.1.2.6/29"]}}
    assert net.add("c", "eth0", "IP=10.1.2.6", **asked) == ["10.1.2.6"]
    assert net.add("d") == ["10.1.2.4"]
    assert net.told("ADD", "e").endswith("no IP addresses available in range set: 10.1.2.1-10.1.2.6")
    net.ok("DEL", "a", "eth0")
    assert net.leases() == ["10.1.2.3", "10.1.2.4", "10.1.2.6"]


# -- addresses that were asked for


@pytest.mark.parametrize(
    ("args", "keys"),
    [
        ("IP=10.1.2.5", {}),
        ("IP=10.1.2.5/24", {}),
        ("IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.2.5", {}),
        ("", {"args": {"cni": {"ips": ["10.1.2.5"]}}}),
        ("", {"runtimeConfig": {"ips": ["10.1.2.5/32"]}}),
        ("IP=10.1.2.5", {"args": {"cni": {"ips": ["10.1.2.5/8"]}}, "runtimeConfig": {"ips": ["10.1.2.5"]}}),
    ],
)
def test_ways_to_ask(net: Network, args: str, keys: dict[str, Any]) -> None:
    """The prefix length that is asked with means nothing; asking three times is asking once (case 20)."""
    assert net.call("ADD", "cid1", "eth0", args, **keys)["ips"] == [{"address": "10.1.2.5/29", "gateway": "10.1.2.1"}]


def test_one_request_for_each_set(tmp_path: pathlib.Path) -> None:
    """In the order of the sets (case 21)."""
    net = Network(tmp_path, ranges=[[{"subnet": "172.16.1.0/24"}, {"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]])
    asked = {"runtimeConfig": {"ips": ["2001:db8:1::999", "10.1.2.88"]}}
    assert net.add("cid1", "eth0", "", **asked) == ["10.1.2.88", "2001:db8:1::999"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["10.1.2.1"], "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway"),
        (
            ["10.1.2.2"],
            "failed to allocate for range 0: requested IP address 10.1.2.2 is not available in range set 10.1.2.1-10.1.2.6",
        ),
        (["10.1.2.3", "10.1.2.4"], "failed to allocate all requested IPs: 10.1.2.4"),
        (["10.1.2.0"], "failed to allocate all requested IPs: 10.1.2.0"),
        (["10.1.2.7", "192.0.2.1"], "failed to allocate all requested IPs: 10.1.2.7 192.0.2.1"),
        ([""], "cannot understand ip: IP <nil> not v4 nor v6"),
        (["zz"], "invalid IP address zz"),
        (["10.1.2.5/33"], "invalid IP address 10.1.2.5/33"),
        (["10.1.2.5/"], "invalid IP address 10.1.2.5/"),
    ],
)
def test_requests_that_cannot_be_met(net: Network, asked: list[str], told: str) -> None:
    """Nothing is taken then (cases 22, 23)."""
    net.write("10.1.2.2", "other\r\neth0")
    before = net.files()
    assert net.told("ADD", runtimeConfig={"ips": asked}) == told
    assert net.files() == before


def test_a_bad_ip_in_cni_args(net: Network) -> None:
    for verb in ("ADD", "CHECK"):
        for text in ("foo", "10.1.2.5/foo"):
            told = net.told(verb, "cid1", "eth0", f"IP={text}")
            assert told == f'ARGS: error parsing value of pair "IP={text}": invalid IP address {text}'
    assert net.told("ADD", "cid1", "eth0", "FOO=1").startswith("ARGS: unknown args")
    assert net.add("cid1", "eth0", "IP=") == ["10.1.2.2"]


# -- whose lease


def test_one_lease_a_range_set(net: Network) -> None:
    net.add("cid1", "eth0")
    assert "duplicate allocation is not allowed" in net.told("ADD", "cid1", "eth0")
    assert net.add("cid2") == ["10.1.2.3"]
    net.ok("DEL", "cid1")
    net.ok("DEL", "cid2")
    assert net.leases() == []


def test_a_failed_add_keeps_the_older_leases(tmp_path: pathlib.Path) -> None:
    """When set 1 answers with the duplicate error, the reference releases the older lease with the new one (a defect)."""
    net = Network(tmp_path, ranges=[[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.2.2.0/24"}]])
    net.write("10.2.2.9", "cid1\r\neth0")
    assert "failed to allocate for range 1: 10.2.2.9 has been allocated" in net.told("ADD")
    assert net.leases() == ["10.2.2.9"]


def test_del_takes_this_interfaces_leases_only(net: Network) -> None:
    net.add("cid1", "eth0")
    net.add("cid1", "eth1")
    net.ok("DEL", "cid1", "eth1")
    assert net.leases() == ["10.1.2.2"]


def test_old_leases_without_an_interface(net: Network) -> None:
    """They are the container's, whatever the interface (case 27)."""
    net.write("10.1.2.4", "cid1")
    net.ok("CHECK", "cid1", "whatever")
    assert "10.1.2.4 has been allocated to cid1" in net.told("ADD", "cid1", "eth5")
    net.ok("DEL", "cid1", "eth9")
    assert net.leases() == []


def test_old_leases_go_only_when_there_is_no_new_one(net: Network) -> None:
    net.write("10.1.2.4", "cid1")
    net.write("10.1.2.5", "cid1\r\neth0")
    net.ok("DEL")
    assert net.leases() == ["10.1.2.4"]
    net.ok("DEL")
    assert net.leases() == []


@pytest.mark.parametrize("content", ["cid1\r\neth0\n", "  cid1\r\neth0", "\ncid1\r\neth0\r\n"])
def test_white_space_round_a_lease_means_nothing(net: Network, content: str) -> None:
    net.write("10.1.2.4", content)
    net.ok("CHECK")
    net.ok("DEL")
    assert net.leases() == []


def test_a_lease_with_another_line_end_is_nobodys(net: Network) -> None:
    net.write("10.1.2.4", "cid1\neth0")
    assert "Failed to find address" in net.told("CHECK")
    net.ok("DEL")
    assert net.leases() == ["10.1.2.4"]
    assert net.add("c2", "eth0", "") == ["10.1.2.2"]


def test_leases_in_odd_places(net: Network) -> None:
    """Found by CHECK and released by DEL; named like an address they are duplicates, too (case 31)."""
    for name in ("sub/10.1.2.6", "not-an-address"):
        net.write(name, "cid1\r\neth0")
        net.ok("CHECK")
        if name == "sub/10.1.2.6":
            assert "10.1.2.6 has been allocated" in net.told("ADD")
        else:
            assert net.add() == ["10.1.2.2"]
        net.ok("DEL")
        assert net.leases() == []


def test_del_of_what_never_was(net: Network) -> None:
    net.ok("DEL")
    assert not net.data_dir.exists(), "DEL makes no folder"
    assert net.told("CHECK") == "host-local: Failed to find address added by container cid1"
    assert not net.data_dir.exists()


def test_del_needs_no_valid_ranges(net: Network) -> None:
    """The reference leaks the lease of a config that became invalid (a defect)."""
    net.add()
    net.ipam = {"type": "host-local", "dataDir": str(net.data_dir), "subnet": "rubbish"}
    net.ok("DEL")
    assert net.leases() == []


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_without_an_ipam_key(net: Network, verb: str) -> None:
    assert net.told(verb, ipam=None) == "IPAM config missing 'ipam' key"


# -- crashes


def test_empty_leases_are_free(net: Network) -> None:
    """What a crash leaves between making and writing a file (USERS 3)."""
    for number in range(2, 7):
        net.write(f"10.1.2.{number}", "")
    assert [net.add(f"c{number}")[0] for number in range(5)] == [f"10.1.2.{number}" for number in range(2, 7)]
    assert set(net.files().values()) >= {b"c0\r\neth0", b"c4\r\neth0"}
    net.ok("DEL", "c0")
    net.write("10.1.2.2", "")
    assert net.add("c9", "eth0", "IP=10.1.2.2") == ["10.1.2.2"]


def test_a_lease_without_its_pointer(net: Network) -> None:
    net.add()
    (net.folder / "last_reserved_ip.0").unlink()
    assert net.add("cid2") == ["10.1.2.3"]


def test_a_full_disk_leaves_no_half_lease(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(fd: int, data: bytes) -> int:
        return real(fd, data[:2]) if data.startswith(b"cid1") else real(fd, data)

    real = os.write
    monkeypatch.setattr(os, "write", short)
    error = net.call("ADD")["error"]
    monkeypatch.undo()
    assert error["msg"].startswith("cannot write the lease: ")
    assert "No space left on device" in error["msg"] + error["details"]
    assert net.leases() == []


# -- the index


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lease files that are read."""
    found: list[str] = []
    real = leases._content

    def content(path: str, *, strip: bool = False) -> bytes | None:
        found.append(path)
        return real(path, strip=strip)

    monkeypatch.setattr(leases, "_content", content)
    return found


@pytest.mark.parametrize("count", [10, 5000])
def test_the_cost_of_a_lease_does_not_depend_on_their_number(tmp_path: pathlib.Path, reads: list[str], count: int) -> None:
    net = network(tmp_path, "10.1.0.0/16")
    for number in range(count):
        net.write(f"10.1.{100 + number // 250}.{number % 250}", f"other{number}\r\neth0")
    net.add("first")
    net.add("second")  # makes the index, as nobody else was here in between
    reads.clear()
    net.add()
    net.ok("CHECK")
    net.ok("DEL")
    net.add("cid2")
    assert len(reads) <= 6, reads


def test_the_index_is_verified(net: Network) -> None:
    """Whatever is changed behind its back, the files have the last word."""
    net.add("cid1")
    net.add("cid2")
    assert _state(net) == "current"
    (net.folder / "10.1.2.2").write_bytes(b"cid3\r\neth0")  # the folder's own time does not change
    assert "Failed to find address" in net.told("CHECK", "cid1")
    net.ok("CHECK", "cid3")
    net.ok("DEL", "cid1")
    assert net.leases() == ["10.1.2.2", "10.1.2.3"]
    net.ok("DEL", "cid3")
    assert net.leases() == ["10.1.2.3"]


def test_a_lease_that_was_removed_by_hand(net: Network) -> None:
    net.add()
    (net.folder / "10.1.2.2").unlink()
    assert net.add() == ["10.1.2.3"]
    net.ok("DEL")
    assert net.leases() == []


def test_somebody_else_in_the_same_moment(net: Network) -> None:
    """A change that leaves the folder with the very time it had for the kernel's clock is seen all the same."""
    net.add("cid0")
    net.add("cid1")
    assert _state(net) == "current"
    mine = os.stat(net.folder).st_mtime_ns
    net.write("10.1.2.6", "cid2\r\neth0")  # as the Go plugin does
    coarse = mine - mine % 4_000_000  # the tick that our moment lies in
    os.utime(net.folder, ns=(coarse, coarse))
    assert "10.1.2.6 has been allocated to cid2" in net.told("ADD", "cid2")


@pytest.mark.parametrize("broken", ["gone", "empty", "rubbish", "directory", "directories", "old"])
def test_an_index_that_is_worth_nothing(net: Network, broken: str) -> None:
    net.add("cid0")
    net.add("cid1")
    net.ok("DEL", "cid0")
    (index,) = (net.folder.parent.parent / "state" / "leases").iterdir()
    mark = index / "mark"
    entries = [path for path in index.rglob("*") if path.is_file() and path != mark]
    match broken:
        case "gone":
            mark.unlink()
        case "empty":
            mark.write_text("")
        case "rubbish":
            for entry in entries:
                entry.write_text("{[")
        case "directory":
            mark.unlink()
            mark.mkdir()
        case "directories":
            for entry in entries:
                entry.unlink()
                entry.mkdir()
        case "old":
            for entry in entries:
                entry.write_text(json.dumps([str(net.folder / "10.1.2.5")]))
    net.ok("CHECK")
    net.ok("DEL")
    assert net.leases() == []
    assert net.add("cid2") == ["10.1.2.4"]


@pytest.mark.parametrize("step", ["write 1", "write 2", "write 3", "utime", "stat"])
def test_a_crash_between_the_steps_of_the_index(net: Network, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call finds what is there, wherever the last one ended."""
    net.add("cid0")
    net.add("cid1")
    net.ok("DEL", "cid0")

    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    from ipcni.ipam import index

    name, _, number = step.partition(" ")
    if number:
        real, calls = index._write, itertools.count(1)
        monkeypatch.setattr(index, "_write", lambda *given: crash() if next(calls) == int(number) else real(*given))
    else:
        monkeypatch.setattr(os, name, _after(getattr(os, name), crash))
    try:
        net.call("ADD", "cid2")
        crashed = False
    except Crash:
        crashed = True
    monkeypatch.undo()
    assert crashed
    held = [address for address, content in net.files().items() if content.startswith(b"cid2")]
    assert len(held) == 1
    net.ok("CHECK", "cid2")
    assert "has been allocated to cid2" in net.told("ADD", "cid2")
    net.ok("DEL", "cid2")
    net.ok("DEL", "cid1")
    assert net.leases() == []


def _after(real: Any, crash: Any) -> Any:
    """The function, which crashes when it is used on the lease folder after the lease has been written."""

    def wrapped(path: Any, *args: Any, **options: Any) -> Any:
        if isinstance(path, str) and path.endswith("networks/net") and any(each.startswith(b"cid2") for each in _contents(path)):
            crash()
        return real(path, *args, **options)

    return wrapped


def _contents(path: str) -> list[bytes]:
    folder = pathlib.Path(path)
    return [each.read_bytes() for each in folder.iterdir() if each.is_file()] if folder.is_dir() else []


def test_the_index_of_many_foreign_leases_is_made_once(tmp_path: pathlib.Path, reads: list[str]) -> None:
    net = network(tmp_path, "10.1.0.0/16")
    for number in range(200):
        net.write(f"10.1.9.{number}", f"go{number}\r\neth0")
    net.add("first")
    net.add("second")
    reads.clear()
    assert "10.1.9.77 has been allocated to go77" in net.told("ADD", "go77")
    assert len(reads) < 5
    net.ok("DEL", "go77")
    assert "10.1.9.77" not in net.leases()


def test_an_index_that_is_nearly_right_is_not_made_anew(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each change of somebody else would cost as many files as there are leases, while everybody waits."""
    from ipcni.ipam import index

    for name in ("mine0", "mine1", "mine2", "mine3"):
        net.add(name)
    net.write("10.1.2.6", "go\r\neth0")
    (net.folder / "10.1.2.2").unlink()
    net.ok("DEL", "mine1")
    assert _state(net) == "undisturbed"
    written: list[str] = []
    real = index._write

    def write(path: str, text: str) -> None:
        written.append(text)
        real(path, text)

    monkeypatch.setattr(index, "_write", write)
    net.ok("DEL", "mine2")
    assert _state(net) == "current"
    assert [text for text in written if "10.1" in text] == [json.dumps([str(net.folder / "10.1.2.6")])]
    (index_folder,) = (net.folder.parent.parent / "state" / "leases").iterdir()
    assert len([path for path in index_folder.rglob("*/*") if path.is_file()]) == 2


def test_no_index_while_others_are_at_work(net: Network, reads: list[str]) -> None:
    """Making one costs more than reading the leases, and it would be of no use."""
    states = []
    for number in range(2):
        net.add(f"mine{number}")
        net.write(f"10.1.2.{6 - number}", f"go{number}\r\neth0")
        states.append(_state(net))
    assert states == ["disturbed", "disturbed"]
    net.ok("DEL", "mine0")
    assert _state(net) == "undisturbed"
    net.ok("DEL", "mine1")
    assert _state(net) == "current"


def _state(net: Network) -> leases.State:
    return leases.Store(str(net.folder), net.settings["IPCNI_STATE_DIR"] + "/leases").state()


def test_a_state_folder_that_cannot_be_written(net: Network, tmp_path: pathlib.Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    net.add()
    net.ok("CHECK")
    net.ok("DEL")
    assert net.leases() == []


# -- GC and STATUS


def valid(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"cni.dev/valid-attachments": [{"containerID": container, "ifname": ifname} for container, ifname in pairs]}


def test_gc_releases_what_is_not_listed(net: Network) -> None:
    """This network's, by container and interface; old leases by the container alone (USERS 16)."""
    net.add("alive", "eth0")
    net.add("alive", "eth1")
    net.add("dead", "eth0")
    net.write("10.1.2.5", "alive")
    net.write("10.1.2.6", "dead")
    net.ok("GC", **valid(("alive", "eth0")))
    assert net.leases() == ["10.1.2.2", "10.1.2.5"]
    net.ok("GC", **valid())
    assert net.leases() == []


def test_gc_leaves_alone_what_is_no_lease(net: Network) -> None:
    net.write("README", "leases live here")
    net.write("10.1.2.4", "two\nlines")
    net.write("10.1.2.5", b"\xff\xfe")
    net.write("10.1.2.6", "")
    net.write("last_reserved_ip.0", "10.1.2.4")
    before = net.files()
    net.ok("GC", **valid())
    assert net.files() == before


def test_gc_of_other_networks_leases(net: Network) -> None:
    net.add("cid1")
    net.ok("GC", name="other", **valid())
    assert net.leases() == ["10.1.2.2"]


def test_gc_without_a_list(net: Network) -> None:
    net.add("cid1")
    net.ok("GC")
    assert net.leases() == ["10.1.2.2"]
    net.ok("GC", **{"cni.dev/valid-attachments": None})
    assert net.leases() == []


@pytest.mark.parametrize("listed", [{}, False, 0, "", [5]])
def test_gc_with_a_list_that_is_none(net: Network, listed: object) -> None:
    """Only null is an empty list: of all else nobody knows whether the pods are dead."""
    net.add("cid1")
    assert "Expected" in net.told("GC", **{"cni.dev/valid-attachments": listed})
    assert net.leases() == ["10.1.2.2"]


def test_gc_where_nothing_is(net: Network) -> None:
    net.ok("GC", **valid())
    assert not net.data_dir.exists()


def test_the_index_after_gc(net: Network) -> None:
    net.add("dead")
    net.ok("GC", **valid())
    assert net.add("dead") == ["10.1.2.3"]


def test_status(net: Network) -> None:
    net.ok("STATUS")
    assert not net.data_dir.exists()
    for number in range(5):
        net.add(f"c{number}")
    error = net.call("STATUS")["error"]
    assert (error["code"], error["msg"]) == (50, "no IP addresses available in range set: 10.1.2.1-10.1.2.6")
    assert "ipam.ranges[0]" in error["details"]
    net.ok("DEL", "c3")
    net.ok("STATUS")


def test_status_of_a_place_that_cannot_be(net: Network, tmp_path: pathlib.Path) -> None:
    (tmp_path / "networks").write_text("a file in the way")
    error = net.call("STATUS")["error"]
    assert error["code"] == 50
    assert str(tmp_path / "networks") in error["msg"]


def test_status_without_the_resolv_conf_that_add_needs(net: Network) -> None:
    net.ipam["resolvConf"] = "/nope"
    error = net.call("STATUS")["error"]
    assert (error["code"], error["msg"]) == (50, "open /nope: no such file or directory")


def test_status_of_a_wrong_config(net: Network) -> None:
    net.ipam["subnet"] = "10.0.0.0/31"
    assert "too small" in net.told("STATUS")


# -- values nobody should have written


@pytest.mark.parametrize("path", ["/tmp/a\nb", "/tmp/a\0b", "/tmp/\x1b[2J"])
@pytest.mark.parametrize("key", ["dataDir", "resolvConf"])
def test_paths_that_cannot_be(net: Network, key: str, path: str) -> None:
    net.ipam[key] = path
    error = net.call("ADD")["error"]
    assert "defect" not in error.get("details", "")
    assert key in error["msg"] + error.get("details", "")
    assert not net.data_dir.exists()


def test_a_data_dir_that_a_shell_would_read(net: Network, tmp_path: pathlib.Path) -> None:
    net.ipam["dataDir"] = f'{tmp_path}/$(touch {tmp_path}/pwned); \'"`x`" %d -é'
    assert net.add() == ["10.1.2.2"]
    net.ok("CHECK")
    net.ok("DEL")
    assert not (tmp_path / "pwned").exists()
    assert os.listdir(f"{net.ipam['dataDir']}/net")


def test_an_interface_name_that_is_no_text(net: Network) -> None:
    """Linux takes any bytes; Python carries those that are no UTF-8 as surrogates."""
    name = os.fsdecode(b"e\xff")
    assert net.add("cid1", name) == ["10.1.2.2"]
    assert net.files()["10.1.2.2"] == b"cid1\r\ne\xff"
    net.ok("CHECK", "cid1", name)
    net.ok("DEL", "cid1", name)
    assert net.leases() == []
