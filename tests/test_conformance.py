"""The protocol sheet's black-box cases (10.1 to 10.6), run against the executables in bin/ as a runtime runs them.

Group G is in test_delegation.py.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.lab import BIN, ENTRY_PATH

BASE = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/nonexistent/ns",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/nonexistent/bin",
}
UNSET = None
NOTHING_ELSE = {"CNI_CONTAINERID": UNSET, "CNI_NETNS": UNSET, "CNI_IFNAME": UNSET, "CNI_PATH": UNSET}
NO_VARIABLES = {**NOTHING_ELSE, "CNI_COMMAND": UNSET}

Change = Mapping[str, str | None]
Stdin = bytes | str | dict[str, Any] | None

ALL = '["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]'
VERSION = '{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
FIVE = {"cniVersion": "1.0.0", "ips": [{"address": "10.44.0.5/24"}]}
ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.44.0.1", "mtu": 1400, "priority": 10, "table": 100, "scope": 0}, {"dst": "::/0"}]
DNS = {"nameservers": ["10.44.0.10"]}
PREV = {
    "interfaces": [{"name": "eth0", "mtu": 1400, "sandbox": "/s", "pciID": "p", "socketPath": "/k"}],
    "ips": [{"version": "4", "address": "10.44.0.5/24", "interface": 0}],
}


def conf(version: object, **more: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "net1", **more}


def least(version: object) -> dict[str, Any]:
    """MIN(v) of the sheet."""
    return conf(version, type="x", ipam={"type": "static", "addresses": [{"address": "10.44.0.5/24"}]})


def full(version: str) -> dict[str, Any]:
    """FULL(v) of the sheet."""
    addresses = [{"address": "10.44.0.5/24", "gateway": "10.44.0.1"}, {"address": "fd44::5/64"}]
    return conf(version, type="x", ipam={"type": "static", "addresses": addresses, "routes": ROUTES, "dns": DNS})


def unaddressed(version: str) -> dict[str, Any]:
    """NOADDR(v) of the sheet."""
    return conf(version, ipam={"type": "static"})


def chain(version: str, prev: object) -> dict[str, Any]:
    """CHAIN(v,P) of the sheet."""
    return conf(version, type="portmap", prevResult=prev)


def without(key: str, body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != key}


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    stdout: str
    stderr: str


Expect = Callable[[Answer], None]


def ok(body: object) -> Expect:
    """Exit 0 and this JSON."""

    def expect(answer: Answer) -> None:
        assert answer.status == 0, answer
        assert json.loads(answer.stdout) == body

    return expect


def empty(answer: Answer) -> None:
    assert (answer.status, answer.stdout) == (0, ""), answer


def version(answer: Answer) -> None:
    assert (answer.status, answer.stdout) == (0, VERSION), answer


def versions(*supported: str) -> Expect:
    """VERSION's answer, byte for byte."""
    listed = ",".join(f'"{each}"' for each in supported)

    def check(answer: Answer) -> None:
        assert (answer.status, answer.stdout) == (0, f'{{"cniVersion":"1.1.0","supportedVersions":[{listed}]}}\n'), answer

    return check


def about(answer: Answer) -> None:
    """Exit 0, nothing on stdout, and the two lines other programs parse on stderr."""
    assert (answer.status, answer.stdout) == (0, ""), answer
    first, second = answer.stderr.splitlines()
    assert re.match(r"CNI static plugin v[0-9]", first)
    assert second == "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"


def fails(code: int, msg: str = "", details: str = "", *, begins: str = "", holds: str = "", ends: str = "") -> Expect:
    """Exit 1 and an error object with exactly these members.

    One liberty is taken: a plugin's own failures (999), which have no `details` in the reference, may have some here that
    tell what to do.
    """

    def expect(answer: Answer) -> None:
        assert answer.status == 1, answer
        error = json.loads(answer.stdout)
        assert error.pop("code") == code, answer
        text = error.pop("msg")
        assert text
        assert text == (msg or text)
        assert text.startswith(begins)
        assert holds in text
        assert text.endswith(ends)
        advice = error.pop("details", "")
        assert advice == details or (code == 999 and not details)
        assert not error

    return expect


def missing(names: str) -> Expect:
    return fails(4, f"required env variables [{names}] missing")


def incompatible(wanted: str) -> Expect:
    return fails(1, "incompatible CNI versions", f'config is "{wanted}", plugin supports {ALL}')


def same_netns(answer: Answer) -> None:
    """The code-8 object is all there is on stdout: the check comes before the deed (sheet 11, row 20)."""
    fails(8, "plugin's netns and netns from CNI_NETNS should not be the same")(answer)


def prints(text: str) -> Expect:
    def expect(answer: Answer) -> None:
        assert answer.status == 0, answer
        assert text in answer.stdout

    return expect


BAD_ID = "invalid characters in containerID"
BAD_NAME = "invalid characters found in network name"
BAD_IFNAME = "interface name contains / or : or whitespace characters"
TOO_LONG = fails(4, "interface name is too long", "interface name should be less than 16 characters")
BAD_JSON = fails(6, begins="error unmarshall network config: ")

# id: (change to BASE, stdin, expected)
STATIC: dict[str, tuple[Change, Stdin, Expect]] = {
    "A1": (NO_VARIABLES, "", about),
    "A2": ({"CNI_COMMAND": "", "CNI_IFNAME": "a/b"}, "", about),
    "A3": (NOTHING_ELSE, least("1.0.0"), missing("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH")),
    "A4": ({"CNI_COMMAND": "CHECK", **NOTHING_ELSE}, least("1.0.0"), missing("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH")),
    "A5": ({"CNI_COMMAND": "DEL", **NOTHING_ELSE}, least("1.0.0"), missing("CNI_CONTAINERID,CNI_IFNAME,CNI_PATH")),
    "A6": ({"CNI_COMMAND": "GC", **NOTHING_ELSE}, least("1.1.0"), missing("CNI_PATH")),
    "A7": ({"CNI_COMMAND": "STATUS", **NOTHING_ELSE}, least("1.1.0"), missing("CNI_PATH")),
    "A8": ({"CNI_PATH": ""}, least("1.0.0"), missing("CNI_PATH")),
    "A9": ({"CNI_NETNS": UNSET, "CNI_PATH": UNSET}, least("1.0.0"), missing("CNI_NETNS,CNI_PATH")),
    "A10": ({"CNI_CONTAINERID": "a/b"}, least("1.0.0"), fails(4, BAD_ID, "a/b")),
    "A11": ({"CNI_CONTAINERID": "-abc"}, least("1.0.0"), fails(4, BAD_ID, "-abc")),
    "A12": ({"CNI_CONTAINERID": "abc\n"}, least("1.0.0"), fails(4, BAD_ID, "abc\n")),
    "A13": ({"CNI_CONTAINERID": "9.a_b-C"}, least("1.0.0"), ok(FIVE)),
    "A14": ({"CNI_CONTAINERID": "a" * 500}, least("1.0.0"), ok(FIVE)),
    "A15": ({**NOTHING_ELSE, "CNI_CONTAINERID": "%%"}, least("1.0.0"), fails(4, BAD_ID, "%%")),
    "A16": ({"CNI_CONTAINERID": UNSET, "CNI_IFNAME": "a:b"}, least("1.0.0"), fails(4, BAD_IFNAME)),
    "A17": ({"CNI_IFNAME": "123456789012345"}, least("1.0.0"), ok(FIVE)),
    "A18": ({"CNI_IFNAME": "1234567890123456"}, least("1.0.0"), TOO_LONG),
    "A19": ({"CNI_IFNAME": "é" * 8}, least("1.0.0"), TOO_LONG),
    "A20": ({"CNI_IFNAME": "."}, least("1.0.0"), fails(4, "interface name is . or ..")),
    "A21": ({"CNI_IFNAME": ".."}, least("1.0.0"), fails(4, "interface name is . or ..")),
    "A22": ({"CNI_IFNAME": "a/b"}, least("1.0.0"), fails(4, BAD_IFNAME)),
    "A23": ({"CNI_IFNAME": "a b"}, least("1.0.0"), fails(4, BAD_IFNAME)),
    "A24": ({"CNI_IFNAME": "a\u00a0b"}, least("1.0.0"), fails(4, BAD_IFNAME)),
    "A25": ({"CNI_IFNAME": "..."}, least("1.0.0"), ok(FIVE)),
    "A26": ({"CNI_COMMAND": "GC", "CNI_CONTAINERID": "%%", "CNI_IFNAME": "a/b"}, least("1.1.0"), empty),
    "A27": ({"CNI_COMMAND": "NOPE"}, least("1.0.0"), fails(4, "unknown CNI_COMMAND: NOPE")),
    "A28": ({"CNI_COMMAND": "add"}, least("1.0.0"), fails(4, "unknown CNI_COMMAND: add")),
    "A29": ({"CNI_COMMAND": "NOPE"}, "{", BAD_JSON),
    "B1": ({}, "", BAD_JSON),
    "B2": ({}, "[]", BAD_JSON),
    "B3": ({}, "null", fails(7, "missing network name")),
    "B4": ({}, json.dumps(least("1.0.0")) + " {}", BAD_JSON),
    "B5": ({}, "\ufeff" + json.dumps(least("1.0.0")), BAD_JSON),
    "B6": ({}, '{"cniVersion":"1.0.0","name":"net1","x":NaN}', BAD_JSON),
    "B7": ({}, '{"cniVersion":"1.0.0" /* v */,"name":"net1"}', BAD_JSON),
    "B8": ({}, " \n\t\r\n" + json.dumps(least("1.0.0")) + "\n \n", ok(FIVE)),
    "B9": ({}, {"cniVersion": "1.0.0"}, fails(7, "missing network name")),
    "B10": ({}, {"cniVersion": "1.0.0", "name": 5}, BAD_JSON),
    "B11": ({}, {"cniVersion": "1.0.0", "name": "a b"}, fails(7, BAD_NAME, "a b")),
    "B12": ({}, {"cniVersion": "1.0.0", "name": "_x"}, fails(7, BAD_NAME, "_x")),
    "B13": ({}, {"NAME": "net1"} | without("name", least("1.0.0")), ok(FIVE)),
    "B14": ({}, '{"name":"a b",' + json.dumps(least("1.0.0"))[1:], ok(FIVE)),
    "B15": ({}, {"cniVersion": 1, "name": "net1"}, fails(6, begins="decoding version from network config: ")),
    "B16": ({"CNI_COMMAND": "STATUS"}, {"cniVersion": "1.1.0"}, fails(7, "missing network name")),
    "C1": ({"CNI_COMMAND": "VERSION", **NOTHING_ELSE}, "garbage", version),
    "C2": ({"CNI_COMMAND": "VERSION"}, {"cniVersion": "0.3.1"}, version),
    "C3": ({"CNI_COMMAND": "VERSION", "CNI_CONTAINERID": "%%", "CNI_IFNAME": "a/b"}, "", version),
    "C7": ({}, least("2.0.0"), incompatible("2.0.0")),
    "C8": ({}, least("1.0"), incompatible("1.0")),
    "C9": ({}, least("abc"), incompatible("abc")),
    "C10": ({}, least("0.5.0"), incompatible("0.5.0")),
    "C11": (
        {},
        without("cniVersion", least("")),
        ok({"cniVersion": "0.1.0", "ip4": {"ip": "10.44.0.5/24"}, "dns": {}}),
    ),
    "C12": ({}, least(""), ok({"cniVersion": "0.1.0", "ip4": {"ip": "10.44.0.5/24"}, "dns": {}})),
    "C13": ({}, least(None), ok({"cniVersion": "0.1.0", "ip4": {"ip": "10.44.0.5/24"}, "dns": {}})),
    "C15": ({"CNI_COMMAND": "CHECK"}, least("0.3.1"), fails(1, "config version does not allow CHECK")),
    "C16": (
        {"CNI_COMMAND": "CHECK"},
        without("cniVersion", least("")),
        fails(1, "config version does not allow CHECK"),
    ),
    "C17": ({"CNI_COMMAND": "CHECK"}, least("abc"), fails(6)),
    "C18": ({"CNI_COMMAND": "CHECK"}, least("1.0.0.0"), fails(6, 'invalid version "1.0.0.0": too many parts')),
    "C19": ({"CNI_COMMAND": "CHECK"}, least("9.9.9"), fails(1, "plugin version does not allow CHECK")),
    "C20": ({"CNI_COMMAND": "CHECK"}, least("0.5.0"), incompatible("0.5.0")),
    "C21": ({"CNI_COMMAND": "GC"}, least("1.0.0"), fails(1, "config version does not allow GC")),
    "C22": ({"CNI_COMMAND": "GC"}, least("1.1.0"), empty),
    "C23": ({"CNI_COMMAND": "GC"}, least("1.2.0"), fails(1, "plugin version does not allow GC")),
    "C24": ({"CNI_COMMAND": "STATUS"}, least("1.0.0"), fails(1, "config version does not allow STATUS")),
    "C25": ({"CNI_COMMAND": "STATUS"}, least("1.1.0"), empty),
    "D8": ({}, unaddressed("1.1.0"), ok({"cniVersion": "1.1.0"})),
    "D9": ({}, unaddressed("0.4.0"), ok({"cniVersion": "0.4.0", "dns": {}})),
    "D10": ({}, unaddressed("0.2.0"), fails(999, "cannot convert: no valid IP addresses")),
    "D11": (
        {},
        conf("1.0.0", ipam={"type": "static", "dns": {"domain": "a<b>&c"}}),
        prints('"domain": "a\\u003cb\\u003e\\u0026c"'),
    ),
    "E1": ({"CNI_ARGS": "FOO=1"}, unaddressed("1.0.0"), fails(999, 'ARGS: unknown args ["FOO=1"]')),
    "E2": ({"CNI_ARGS": "A=1;B=2"}, unaddressed("1.0.0"), fails(999, 'ARGS: unknown args ["A=1" "B=2"]')),
    "E3": ({"CNI_ARGS": "FOO=1;IgnoreUnknown=true"}, unaddressed("1.0.0"), ok({"cniVersion": "1.0.0"})),
    "E4": ({"CNI_ARGS": "IgnoreUnknown=TRUE;K8S_POD_NAME=p"}, unaddressed("1.0.0"), ok({"cniVersion": "1.0.0"})),
    "E5": (
        {"CNI_ARGS": "IgnoreUnknown=yes"},
        unaddressed("1.0.0"),
        fails(
            999,
            'ARGS: error parsing value of pair "IgnoreUnknown=yes": boolean unmarshal error: invalid input yes',
        ),
    ),
    "E6": ({"CNI_ARGS": "ignoreunknown=1"}, unaddressed("1.0.0"), fails(999, 'ARGS: unknown args ["ignoreunknown=1"]')),
    "E7": ({"CNI_ARGS": "IP"}, unaddressed("1.0.0"), fails(999, 'ARGS: invalid pair "IP"')),
    "E8": ({"CNI_ARGS": "IgnoreUnknown=1;"}, unaddressed("1.0.0"), fails(999, 'ARGS: invalid pair ""')),
    "E9": ({"CNI_ARGS": "IP=a=b"}, unaddressed("1.0.0"), fails(999, 'ARGS: invalid pair "IP=a=b"')),
    "E10": (
        {"CNI_ARGS": "IP=10.9.0.2/24;GATEWAY=10.9.0.1"},
        unaddressed("1.0.0"),
        ok({"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}]}),
    ),
    "E11": (
        {"CNI_ARGS": "IP=10.9.0.2/24"},
        unaddressed("1.0.0") | {"args": {"cni": {"ips": ["10.8.0.2/24"]}}},
        ok({"cniVersion": "1.0.0", "ips": [{"address": "10.8.0.2/24"}]}),
    ),
    "E12": (
        {},
        unaddressed("1.0.0") | {"args": {"cni": {"ips": ["10.8.0.2/24"]}}, "runtimeConfig": {"ips": ["10.7.0.2/24"]}},
        ok({"cniVersion": "1.0.0", "ips": [{"address": "10.7.0.2/24"}]}),
    ),
    "F1": ({"CNI_NETNS": "/proc/self/ns/net"}, least("1.0.0"), same_netns),
    "F2": ({"CNI_NETNS": "/proc/self/ns/net", "CNI_NETNS_OVERRIDE": "1"}, least("1.0.0"), ok(FIVE)),
    "F3": ({"CNI_NETNS": "/proc/self/ns/net", "CNI_NETNS_OVERRIDE": "tRuE"}, least("1.0.0"), ok(FIVE)),
    "F4": ({"CNI_NETNS": "/proc/self/ns/net", "CNI_NETNS_OVERRIDE": "yes"}, least("1.0.0"), same_netns),
    "F5": ({"CNI_COMMAND": "DEL", "CNI_NETNS": "/proc/self/ns/net"}, least("1.0.0"), same_netns),
    "F6": ({"CNI_COMMAND": "DEL", "CNI_NETNS": UNSET}, least("1.0.0"), empty),
}

# id: (plugin, change to BASE, stdin, expected)
OTHERS: dict[str, tuple[str, Change, Stdin, Expect]] = {
    "E13": (
        "host-local",
        {"CNI_COMMAND": "DEL", "CNI_ARGS": "FOO=1"},
        conf("1.0.0", ipam={"type": "host-local", "subnet": "10.3.0.0/24"}),
        fails(999, 'ARGS: unknown args ["FOO=1"]'),
    ),
    "F9": ("loopback", {"CNI_COMMAND": "DEL", "CNI_NETNS": UNSET}, conf("1.0.0", type="loopback"), empty),
    "F11": (
        "bridge",
        {"CNI_COMMAND": "STATUS"},
        conf("1.1.0", type="bridge", ipam={"type": "nosuch"}),
        fails(999, 'failed to find plugin "nosuch" in path [/nonexistent/bin]'),
    ),
    "F12": (
        "bridge",
        {"CNI_COMMAND": "STATUS"},
        conf("1.1.0", type="bridge", ipam={"type": "../x"}),
        fails(999, "invalid plugin name: ../x"),
    ),
    "F13": ("ptp", {"CNI_COMMAND": "STATUS"}, conf("1.1.0", type="ptp"), fails(999, "no plugin name provided")),
    "F14": ("tap", {"CNI_COMMAND": "STATUS"}, conf("1.1.0", type="tap"), empty),
    "C4": ("bandwidth", {"CNI_COMMAND": "VERSION", **NOTHING_ELSE}, "", versions("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")),
    "C5": ("firewall", {"CNI_COMMAND": "VERSION", **NOTHING_ELSE}, "", versions("0.4.0", "1.0.0", "1.1.0")),
    "C14": (
        "firewall",
        {},
        {"name": "net1"},
        fails(1, "incompatible CNI versions", 'config is "0.1.0", plugin supports ["0.4.0" "1.0.0" "1.1.0"]'),
    ),
    "E16": (
        "bandwidth",
        {},
        conf("1.0.0", prevResult={}, runtimeConfig={"bandwidth": {"IngressRate": 5, "IngressBurst": 0}}),
        fails(999, "if rate is set, burst must also be set"),
    ),
    "C6": ("vrf", {"CNI_COMMAND": "VERSION", **NOTHING_ELSE}, "", versions("0.3.1", "0.4.0", "1.0.0", "1.1.0")),
}

ONE_IP = {"ips": [{"address": "10.44.0.5/24"}]}

# id: (change to BASE, stdin, expected)
PORTMAP: dict[str, tuple[Change, Stdin, Expect]] = {
    "D12": (
        {},
        chain("1.0.0", PREV),
        ok(
            {
                "cniVersion": "1.0.0",
                "interfaces": [{"mtu": 1400, "name": "eth0", "pciID": "p", "sandbox": "/s", "socketPath": "/k"}],
                "ips": [{"address": "10.44.0.5/24", "interface": 0}],
            }
        ),
    ),
    "D13": (
        {},
        chain("0.4.0", PREV),
        ok(
            {
                "cniVersion": "0.4.0",
                "interfaces": [{"name": "eth0", "sandbox": "/s"}],
                "ips": [{"version": "4", "interface": 0, "address": "10.44.0.5/24"}],
                "dns": {},
            }
        ),
    ),
    "D14": (
        {},
        chain("0.2.0", {"ip4": {"ip": "10.44.0.5/24"}}),
        ok({"cniVersion": "0.2.0", "ip4": {"ip": "10.44.0.5/24"}, "dns": {}}),
    ),
    "D15": ({}, chain("1.0.0", {"cniVersion": "1.1.0"}), ok({"cniVersion": "1.0.0"})),
    "D16": (
        {},
        chain("1.0.0", {"cniVersion": "0.4.0"}),
        fails(999, ends='result type supports [1.0.0 1.1.0] but unmarshalled CNIVersion is "0.4.0"'),
    ),
    "D17": ({}, chain("1.0.0", []), fails(999, holds="prevResult")),
    "D18": ({}, chain("1.0.0", None), fails(999, "must be called as chained plugin")),
    "D19": ({}, chain("1.0.0", {"ips": [{"address": "10.44.0.5"}]}), fails(999, ends="invalid CIDR address: 10.44.0.5")),
    "D20": (
        {},
        chain("1.0.0", {"ips": [{"address": "10.44.0.5/24", "gateway": ""}]}),
        ok({"cniVersion": "1.0.0", **ONE_IP}),
    ),
    "D21": (
        {},
        chain("0.4.0", {"ips": [{"version": "6", "address": "::ffff:10.44.0.5/120"}]}),
        ok({"cniVersion": "0.4.0", "ips": [{"version": "6", "address": "10.44.0.5/24"}], "dns": {}}),
    ),
    "D22": (
        {},
        chain("1.0.0", {"extra": 1, "ips": [{"address": "10.44.0.5/24", "foo": 2}]}),
        ok({"cniVersion": "1.0.0", **ONE_IP}),
    ),
    "D23": (
        {},
        chain("1.0.0", {"ips": [{"address": "FD44:0:0::5/64"}]}),
        ok({"cniVersion": "1.0.0", "ips": [{"address": "fd44::5/64"}]}),
    ),
    "E14": ({"CNI_COMMAND": "CHECK", "CNI_ARGS": "FOO=1"}, chain("1.0.0", ONE_IP), empty),
    "E15": (
        {},
        conf(
            "1.0.0",
            prevResult={},
            runtimeConfig={"portMappings": [{"HostPort": -5, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]},
        ),
        fails(999, "failed to parse config: Invalid host port number: -5"),
    ),
    "F7": ({"CNI_COMMAND": "CHECK", "CNI_NETNS": "/proc/self/ns/net"}, chain("1.0.0", ONE_IP), empty),
    "F10": ({"CNI_COMMAND": "CHECK"}, conf("1.0.0", type="portmap"), fails(999, "Required prevResult missing")),
}

CASES = (
    [pytest.param("static", *case, id=name) for name, case in STATIC.items()]
    + [pytest.param(*case, id=name) for name, case in OTHERS.items()]
    + [pytest.param("portmap", *case, id=name) for name, case in PORTMAP.items()]
)


class Caller:
    """Runs executables with BASE and what a case changes in it; everything ipcni writes goes to a scratch folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._own = {
            "PATH": ENTRY_PATH,
            "IPCNI_LOG_DIR": str(folder / "log"),
            "IPCNI_RUN_DIR": str(folder / "run"),
            "IPCNI_STATE_DIR": str(folder / "state"),
        }

    def environ(self, change: Change) -> dict[str, str]:
        changed = {**BASE, **change}
        return self._own | {key: value for key, value in changed.items() if value is not None}

    def __call__(self, plugin: str, change: Change, stdin: Stdin, *argv: str) -> Answer:
        text = json.dumps(stdin) if isinstance(stdin, dict) else stdin or ""
        data = text if isinstance(text, bytes) else text.encode()
        done = subprocess.run(
            [BIN / plugin, *argv], env=self.environ(change), input=data, capture_output=True, check=False, timeout=30
        )
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def call(tmp_path: pathlib.Path) -> Caller:
    return Caller(tmp_path)


@pytest.mark.parametrize(("plugin", "change", "stdin", "expect"), CASES)
def test_case(call: Caller, plugin: str, change: Change, stdin: Stdin, expect: Expect) -> None:
    answer = call(plugin, change, stdin)
    expect(answer)
    assert expect is about or answer.stderr == ""


def test_f8_a_repeated_del_succeeds(call: Caller) -> None:
    for _ in range(2):
        empty(call("static", {"CNI_COMMAND": "DEL"}, least("1.0.0")))


def _with_fd(call: Caller, change: Change, shell: str) -> Answer:
    """A call whose standard descriptors a shell has changed, as nothing in subprocess can."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {BIN}/static {shell}"],
        env=call.environ(change),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=30,
    )
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_b17_stdin_is_a_directory(call: Caller) -> None:
    fails(5, begins="error reading from stdin: ")(_with_fd(call, {}, "</tmp"))


def test_b18_stdin_is_closed(call: Caller) -> None:
    BAD_JSON(_with_fd(call, {}, "<&-"))


def test_b19_version_with_stdin_closed(call: Caller) -> None:
    version(_with_fd(call, {"CNI_COMMAND": "VERSION"}, "<&-"))


def test_closed_stderr_leaves_stdout_to_the_protocol(call: Caller) -> None:
    BAD_JSON(_with_fd(call, {}, "</dev/null 2>&-"))
    empty(_with_fd(call, NO_VARIABLES, "2>&-"))


# D1 to D7, and the layout in bytes (sheet 1.9, 5.3): four blanks a level, the reference's key order, no newline at the end.

LAYOUT_NEW = """{
    "cniVersion": "%s",
    "dns": {
        "nameservers": [
            "10.44.0.10"
        ]
    },
    "ips": [
        {
            "address": "10.44.0.5/24",
            "gateway": "10.44.0.1"
        },
        {
            "address": "fd44::5/64"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "gw": "10.44.0.1",
            "mtu": 1400,
            "priority": 10,
            "scope": 0,
            "table": 100
        },
        {
            "dst": "::/0"
        }
    ]
}"""

LAYOUT_MIDDLE = """{
    "cniVersion": "%s",
    "ips": [
        {
            "version": "4",
            "address": "10.44.0.5/24",
            "gateway": "10.44.0.1"
        },
        {
            "version": "6",
            "address": "fd44::5/64"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "gw": "10.44.0.1",
            "mtu": 1400,
            "priority": 10,
            "table": 100,
            "scope": 0
        },
        {
            "dst": "::/0"
        }
    ],
    "dns": {
        "nameservers": [
            "10.44.0.10"
        ]
    }
}"""

LAYOUT_OLD = """{
    "cniVersion": "%s",
    "ip4": {
        "ip": "10.44.0.5/24",
        "gateway": "10.44.0.1",
        "routes": [
            {
                "dst": "0.0.0.0/0",
                "gw": "10.44.0.1"
            }
        ]
    },
    "ip6": {
        "ip": "fd44::5/64",
        "routes": [
            {
                "dst": "::/0"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "10.44.0.10"
        ]
    }
}"""


@pytest.mark.parametrize(
    ("wanted", "layout"),
    [
        pytest.param("1.1.0", LAYOUT_NEW, id="D1"),
        pytest.param("1.0.0", LAYOUT_NEW, id="D2"),
        pytest.param("0.4.0", LAYOUT_MIDDLE, id="D3"),
        pytest.param("0.3.1", LAYOUT_MIDDLE, id="D4"),
        pytest.param("0.3.0", LAYOUT_MIDDLE, id="D5"),
        pytest.param("0.2.0", LAYOUT_OLD, id="D6"),
        pytest.param("0.1.0", LAYOUT_OLD, id="D7"),
    ],
)
def test_result_in_bytes(call: Caller, wanted: str, layout: str) -> None:
    answer = call("static", {}, full(wanted))
    assert answer.stdout == layout % wanted
    assert answer.status == 0


def test_error_in_bytes(call: Caller) -> None:
    answer = call("static", {"CNI_CONTAINERID": "<é&\u2028>"}, "")
    assert answer.stdout == (
        '{\n    "code": 4,\n    "msg": "invalid characters in containerID",\n    "details": "\\u003cé\\u0026\\u2028\\u003e"\n}'
    )
    assert answer.status == 1


# What the environment, the command line and the way it is called may be.


def test_version_option_prints_about(call: Caller) -> None:
    """Runtimes find the version of a plugin with `--version` and no CNI_COMMAND (Podman, CRI-O)."""
    answer = call("bridge", NO_VARIABLES, "", "--version")
    assert (answer.status, answer.stdout) == (0, "")
    assert re.match(r"CNI bridge plugin v[0-9]", answer.stderr)


def test_arguments_are_ignored(call: Caller) -> None:
    ok(FIVE)(call("static", {}, least("1.0.0"), "--help", "-x"))


def test_bare_environment() -> None:
    """PATH is all there is, not even a locale: a name in UTF-8 is still counted in bytes and printed as it was."""
    env = {"PATH": "/usr/bin", "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "é"}
    done = subprocess.run([BIN / "static"], env=env, input=b"", capture_output=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"code": 4, "msg": BAD_ID, "details": "é"}
    done = subprocess.run([BIN / "static"], env={"PATH": "/usr/bin"}, input=b"", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "xx_YY.ISO-8859-1"])
def test_locale_changes_nothing(call: Caller, locale: str) -> None:
    TOO_LONG(call("static", {"LC_ALL": locale, "CNI_IFNAME": "é" * 8}, least("1.0.0")))
    ok(FIVE)(call("static", {"LC_ALL": locale, "CNI_IFNAME": "à"}, least("1.0.0")))  # its second byte is a blank in Latin-1


def test_stdout_that_cannot_be_written(call: Caller) -> None:
    """A runtime that went away must not make the plugin say something else instead."""
    done = subprocess.run(
        [BIN / "static"],
        env=call.environ({}),
        input=json.dumps(least("1.0.0")).encode(),
        stdout=os.open("/dev/full", os.O_WRONLY),
        stderr=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
