"""The IPAM plugin static (IPAM sheet 3, cases 33 to 38)."""

import json
from typing import Any

import pytest

from ipcni.protocol import skel
from tests.nowhere import Nowhere

FOUR = {"address": "10.10.0.1/24", "gateway": "10.10.0.254"}
SIX = {"address": "3ffe:ffff:0:1ff::1/64", "gateway": "3ffe:ffff::1"}
ADDED = "IP=10.10.0.2/24;GATEWAY=10.10.0.254"


def conf(ipam: object = None, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "n", **({} if ipam is None else {"ipam": ipam}), **more}


def ask(verb: str, body: dict[str, Any], args: str = "") -> tuple[int, Any]:
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/none",
        "CNI_ARGS": args,
        "IPCNI_LOG_DIR": "/dev/null/none",
    }
    host = Nowhere()
    answer = skel.handle("static", env, json.dumps(body).encode, lambda *_: host)
    assert host.planned == []  # it changes nothing
    return answer.status, json.loads(answer.stdout) if answer.stdout else None


def added(body: dict[str, Any], args: str = "") -> dict[str, Any]:
    status, found = ask("ADD", body, args)
    assert status == 0, found
    result: dict[str, Any] = found
    return result


def refused(verb: str, body: dict[str, Any], args: str = "") -> str:
    status, found = ask(verb, body, args)
    assert (status, found["code"]) == (1, 999)
    msg: str = found["msg"]
    return msg


def test_everything_configured() -> None:
    """Case 33 and 34: all of it, in order, two default routes too."""
    routes = [
        {"dst": "0.0.0.0/0", "gw": "10.10.0.254"},
        {"dst": "0.0.0.0/0", "gw": "10.10.0.253"},
        {"dst": "3ffe:ffff:0:1ff::/64"},
    ]
    dns = {"domain": "example.com", "nameservers": ["8.8.8.8"], "options": ["ndots:1"], "search": ["a", "b"]}
    found = added(conf({"addresses": [FOUR, SIX], "routes": routes, "dns": dns}))
    assert found == {"cniVersion": "1.0.0", "ips": [FOUR, SIX], "routes": routes, "dns": dns}


def ips(*texts: str, gateway: str = "") -> list[dict[str, str]]:
    return [{"address": text, "gateway": gateway} if gateway else {"address": text} for text in texts]


@pytest.mark.parametrize(
    ("ipam", "more", "args", "expected"),
    [
        ({}, {}, "IP=10.10.0.1/24;GATEWAY=10.10.0.254", ips("10.10.0.1/24", gateway="10.10.0.254")),
        (
            {},
            {},
            "IP=10.10.0.1/24 , 11.11.0.1/24;GATEWAY=10.10.0.254",
            ips("10.10.0.1/24", gateway="10.10.0.254") + ips("11.11.0.1/24"),
        ),
        ({}, {}, "IP=10.10.0.1/24;GATEWAY=10.10.0.3, 10.10.0.4", ips("10.10.0.1/24", gateway="10.10.0.4")),
        ({}, {}, "IP=10.10.0.1/24,fd00::1/64;GATEWAY=fd00::2", ips("10.10.0.1/24") + ips("fd00::1/64", gateway="fd00::2")),
        ({}, {}, "IP=;GATEWAY=", None),
        ({}, {}, "GATEWAY=10.10.0.254", None),
        ({"addresses": [FOUR]}, {}, ADDED, [FOUR, *ips("10.10.0.2/24", gateway="10.10.0.254")]),
        (
            {"addresses": ips("10.10.0.1/24")},
            {},
            "GATEWAY=10.10.0.254",
            ips("10.10.0.1/24"),
        ),
        ({"addresses": [FOUR]}, {"args": {"cni": {"ips": ["10.10.0.3/24"]}}}, ADDED, ips("10.10.0.3/24")),
        ({"addresses": [FOUR]}, {"args": {"cni": {"ips": []}}}, "", [FOUR]),
        (
            {"addresses": [FOUR]},
            {"args": {"cni": {"ips": ["10.10.0.3/24"]}}, "runtimeConfig": {"ips": ["FD00::4/64"]}},
            ADDED,
            ips("fd00::4/64"),
        ),
        ({"addresses": [{"address": "not looked at"}]}, {"runtimeConfig": {"ips": ["10.10.0.4/24"]}}, "", ips("10.10.0.4/24")),
        ({"addresses": [{"ADDRESS": "10.10.0.1/24", "Gateway": ""}]}, {}, "", ips("10.10.0.1/24")),
        ({"addresses": [{"address": "10.10.0.1/24", "gateway": "192.0.2.1"}]}, {}, "", ips("10.10.0.1/24", gateway="192.0.2.1")),
    ],
)
def test_addresses(ipam: object, more: dict[str, Any], args: str, expected: object) -> None:
    """Cases 35 and 36: who adds to, and who replaces, the addresses of whom."""
    assert added(conf(ipam, **more), args).get("ips") == expected


@pytest.mark.parametrize(
    ("ipam", "more", "args", "problem"),
    [
        (
            {"addresses": [{"address": "10.10.0.1"}]},
            {},
            "",
            "the 'address' field is expected to be in CIDR notation, got: '10.10.0.1'",
        ),
        ({"addresses": [{}]}, {}, "", "the 'address' field is expected to be in CIDR notation, got: ''"),
        ({"addresses": [{"address": "10.10.0.1/24", "gateway": "zz"}]}, {}, "", "invalid IP address: zz"),
        ({}, {}, "IP=10.10.0.1", "the 'ip' field is expected to be in CIDR notation, got: '10.10.0.1'"),
        ({}, {}, "IP=10.10.0.1/24,", "the 'ip' field is expected to be in CIDR notation, got: ''"),
        ({}, {}, "IP=10.10.0.1/24;GATEWAY=zz", "invalid gateway address: zz"),
        (
            {},
            {"args": {"cni": {"ips": ["10.10.0.1"]}}},
            "",
            "an entry in the 'ips' field is NOT in CIDR notation, got: '10.10.0.1'",
        ),
        (
            {},
            {"runtimeConfig": {"ips": ["10.10.0.1"]}},
            "",
            "an entry in the 'ips' field is NOT in CIDR notation, got: '10.10.0.1'",
        ),
        (None, {}, "IP=10.10.0.1/24", "IPAM config missing 'ipam' key"),
        (None, {"runtimeConfig": {"ips": ["10.10.0.1/24"]}}, "", "IPAM config missing 'ipam' key"),
        ({}, {}, "MAC=0a:58:0a:00:00:05", 'ARGS: unknown args ["MAC=0a:58:0a:00:00:05"]'),
        ({"routes": [{"dst": "10.0.0.0"}]}, {}, "", "invalid CIDR address: 10.0.0.0"),
    ],
)
def test_refused(ipam: object, more: dict[str, Any], args: str, problem: str) -> None:
    """Case 37."""
    assert refused("ADD", conf(ipam, **more), args) == problem


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_old_versions_have_one_address_of_a_family(version: str) -> None:
    problem = f"CNI version {version} does not support more than 1 address per family"
    assert refused("ADD", conf({"addresses": [FOUR]}, version), "IP=11.11.0.1/24") == problem
    assert added(conf({"addresses": [FOUR, SIX]}, version))["ip6"]["ip"] == SIX["address"]


@pytest.mark.parametrize(
    ("body", "args"),
    [(conf(), ""), (conf({"addresses": 5}), "IP"), (conf({"addresses": [FOUR]}), ""), (conf(prevResult=[]), "X=1")],
)
def test_del_always_succeeds(body: dict[str, Any], args: str) -> None:
    """Case 38."""
    assert ask("DEL", body, args) == (0, None)


def prev(*ips: dict[str, str]) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "ips": list(ips)}


@pytest.mark.parametrize(
    ("addresses", "there"),
    [
        ([FOUR], prev(FOUR)),
        ([FOUR, SIX], prev(SIX, FOUR)),
        ([FOUR], prev()),
        ([FOUR], prev(SIX)),
        ([FOUR], prev({**FOUR, "address": "10.10.0.1/16"})),
        (ips("10.10.0.1/24"), prev(FOUR)),
        ([SIX], prev({**SIX, "gateway": "3FFE:FFFF:0::1"})),
    ],
)
def test_check(addresses: list[dict[str, str]], there: dict[str, Any]) -> None:
    assert ask("CHECK", conf({"addresses": addresses}, prevResult=there)) == (0, None)


@pytest.mark.parametrize(
    ("body", "args", "problem"),
    [
        (
            conf({"addresses": [FOUR]}, prevResult=prev({**FOUR, "gateway": "10.10.0.253"}, FOUR)),
            "",
            "static: Failed to match addr 10.10.0.1 on interface eth0",
        ),
        (
            conf({"addresses": [FOUR]}, prevResult=prev(*ips("10.10.0.1/24"))),
            "",
            "static: Failed to match addr 10.10.0.1 on interface eth0",
        ),
        (
            conf({}, prevResult=prev(*ips("10.10.0.2/24"))),
            ADDED,
            "static: Failed to match addr 10.10.0.2 on interface eth0",
        ),
        (conf({"addresses": [FOUR]}), "", "Required prevResult missing"),
        (conf(prevResult=prev(FOUR)), "", "IPAM config missing 'ipam' key"),
        (conf({}, prevResult=prev(FOUR)), "X=1", 'ARGS: unknown args ["X=1"]'),
    ],
)
def test_check_fails(body: dict[str, Any], args: str, problem: str) -> None:
    assert refused("CHECK", body, args) == problem
