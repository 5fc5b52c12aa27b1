"""Results in every version, and from every version to every other (protocol sheet 5)."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni.errors import CniError
from ipcni.protocol import config, result
from ipcni.protocol.result import Dns, Interface, IpConfig, Result, Route

OLD, MIDDLE, NEW = ("0.1.0", "0.2.0"), ("0.3.0", "0.3.1", "0.4.0"), ("1.0.0", "1.1.0")
FAMILIES = (OLD, MIDDLE, NEW)
DNS = {"nameservers": ["10.44.0.10"], "domain": "pods.local", "search": ["svc.pods.local"], "options": ["ndots:5"]}
EXTENDED = {"dst": "0.0.0.0/0", "gw": "10.44.0.1", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 100, "scope": 0}

# The sheet's 5.4, byte for byte but for the white space and the version.
IN_NEW = """{"cniVersion": "?",
  "dns": {"domain": "pods.local", "nameservers": ["10.44.0.10"], "options": ["ndots:5"], "search": ["svc.pods.local"]},
  "interfaces": [
    {"mac": "0a:58:0a:2c:00:01", "mtu": 1450, "name": "br-pods"},
    {"mac": "0a:58:0a:2c:00:7f", "mtu": 1450, "name": "veth1a2b3c4d"},
    {"mac": "0a:58:0a:2c:00:05", "mtu": 1450, "name": "eth0", "pciID": "0000:3b:02.1", "sandbox": "/run/netns/pod1", "socketPath": "/run/vhost/pod1.sock"}
  ],
  "ips": [
    {"address": "10.44.0.5/24", "gateway": "10.44.0.1", "interface": 2},
    {"address": "10.44.1.5/24", "interface": 2},
    {"address": "fd44::5/64", "gateway": "fd44::1", "interface": 2}
  ],
  "routes": [
    {"advmss": 1360, "dst": "0.0.0.0/0", "gw": "10.44.0.1", "mtu": 1400, "priority": 10, "scope": 0, "table": 100},
    {"dst": "::/0"}
  ]}"""
IN_MIDDLE = """{"cniVersion": "?",
  "interfaces": [
    {"name": "br-pods", "mac": "0a:58:0a:2c:00:01"},
    {"name": "veth1a2b3c4d", "mac": "0a:58:0a:2c:00:7f"},
    {"name": "eth0", "mac": "0a:58:0a:2c:00:05", "sandbox": "/run/netns/pod1"}
  ],
  "ips": [
    {"version": "4", "interface": 2, "address": "10.44.0.5/24", "gateway": "10.44.0.1"},
    {"version": "4", "interface": 2, "address": "10.44.1.5/24"},
    {"version": "6", "interface": 2, "address": "fd44::5/64", "gateway": "fd44::1"}
  ],
  "routes": [
    {"dst": "0.0.0.0/0", "gw": "10.44.0.1", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 100, "scope": 0},
    {"dst": "::/0"}
  ],
  "dns": {"nameservers": ["10.44.0.10"], "domain": "pods.local", "search": ["svc.pods.local"], "options": ["ndots:5"]}}"""
IN_OLD = """{"cniVersion": "?",
  "ip4": {"ip": "10.44.0.5/24", "gateway": "10.44.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.44.0.1"}]},
  "ip6": {"ip": "fd44::5/64", "gateway": "fd44::1", "routes": [{"dst": "::/0"}]},
  "dns": {"nameservers": ["10.44.0.10"], "domain": "pods.local", "search": ["svc.pods.local"], "options": ["ndots:5"]}}"""
LAYOUTS = (IN_OLD, IN_MIDDLE, IN_NEW)


def family(version: str) -> int:
    return next(number for number, versions in enumerate(FAMILIES) if version in versions)


def shown(layout: str, version: str) -> str:
    """A document of the sheet as the plugin prints it, key order and all."""
    return json.dumps(json.loads(layout.replace("?", version, 1)), indent=4)


def convert(body: dict[str, Any], version: str) -> dict[str, Any]:
    """From the version it says it is in to another one."""
    answer: dict[str, Any] = json.loads(result.text(result.encode(result.decode(body, body["cniVersion"]), version)))
    return answer


# What is left of the example on its way from one layout to another (5.5).
_LOWER = [{"address": "10.44.0.5/24", "gateway": "10.44.0.1"}, {"address": "fd44::5/64", "gateway": "fd44::1"}]
_PLAIN_ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.44.0.1"}, {"dst": "::/0"}]
_MIDDLE, _NEW = json.loads(IN_MIDDLE), json.loads(IN_NEW)
CONVERTED: dict[tuple[int, int], dict[str, Any]] = {
    (0, 0): json.loads(IN_OLD),
    (0, 1): {
        "ips": [{"version": "4", **_LOWER[0]}, {"version": "6", **_LOWER[1]}],
        "routes": _PLAIN_ROUTES,
        "dns": DNS,
    },
    (0, 2): {"ips": _LOWER, "routes": _PLAIN_ROUTES, "dns": DNS},
    (1, 0): json.loads(IN_OLD),
    (1, 1): _MIDDLE,
    (1, 2): {**_NEW, "interfaces": _MIDDLE["interfaces"]},
    (2, 0): json.loads(IN_OLD),
    (2, 1): _MIDDLE,
    (2, 2): _NEW,
}


@pytest.mark.parametrize("version", result.VERSIONS)
@pytest.mark.parametrize("source", result.VERSIONS)
def test_every_version_from_every_version(source: str, version: str) -> None:
    ours, theirs = family(source), family(version)
    body = json.loads(LAYOUTS[ours].replace("?", source, 1))
    assert convert(body, version) == {**CONVERTED[ours, theirs], "cniVersion": version}


@pytest.mark.parametrize("version", result.VERSIONS)
def test_every_version_in_bytes(version: str) -> None:
    newest = result.decode(json.loads(IN_NEW.replace("?", "1.1.0", 1)), "1.1.0")
    expected = shown(LAYOUTS[family(version)], version)
    assert result.text(result.encode(newest, version)).decode() == expected


def old(**more: Any) -> dict[str, Any]:
    return {"cniVersion": "0.2.0", **more}


def middle(**more: Any) -> dict[str, Any]:
    return {"cniVersion": "0.4.0", **more}


def new(**more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", **more}


@pytest.mark.parametrize(
    ("body", "converted"),
    [
        pytest.param(
            old(ip4={"ip": "10.0.0.2/24", "routes": [EXTENDED]}),
            old(ip4={"ip": "10.0.0.2/24", "routes": [EXTENDED]}, dns={}),
            id="old to old keeps all fields of routes",
        ),
        pytest.param(
            old(ip4={"ip": "10.0.0.2/24", "routes": [EXTENDED]}),
            middle(ips=[{"version": "4", "address": "10.0.0.2/24"}], routes=[EXTENDED], dns={}),
            id="old to middle keeps all fields of routes",
        ),
        pytest.param(old(), old(dns={}), id="old to old needs no address"),
        pytest.param(old(), middle(dns={}), id="empty old to middle"),
        pytest.param(old(), new(), id="empty old to new"),
        pytest.param(
            old(ip4={"ip": "fd00::2/64"}),
            middle(ips=[{"version": "4", "address": "fd00::2/64"}], dns={}),
            id="the slot decides the label, not the address",
        ),
        pytest.param(
            middle(ips=[{"version": "6", "address": "10.0.0.2/24"}]),
            old(ip6={"ip": "10.0.0.2/24"}, dns={}),
            id="the label decides the slot, not the address",
        ),
        pytest.param(
            middle(ips=[{"version": "5", "address": "10.0.0.1/24"}, {"version": "4", "address": "10.0.0.2/24"}]),
            old(ip4={"ip": "10.0.0.2/24"}, dns={}),
            id="an address with another label is skipped",
        ),
        pytest.param(
            middle(ips=[{"version": "4", "address": "10.0.0.2/24"}], routes=[{"dst": "::/0"}, EXTENDED]),
            old(ip4={"ip": "10.0.0.2/24", "routes": [{"dst": "0.0.0.0/0", "gw": "10.44.0.1"}]}, dns={}),
            id="a route without a slot is dropped",
        ),
        pytest.param(
            middle(ips=[{"version": "6", "address": "10.0.0.2/24", "interface": 0}]),
            middle(ips=[{"version": "6", "interface": 0, "address": "10.0.0.2/24"}], dns={}),
            id="middle to middle keeps the label",
        ),
        pytest.param(
            middle(interfaces=[{"name": "eth0", "mtu": 1400, "socketPath": "/x"}]),
            new(interfaces=[{"name": "eth0"}]),
            id="middle has no mtu",
        ),
        pytest.param(
            new(ips=[{"version": "4", "address": "fd00::2/64"}]),
            middle(ips=[{"version": "6", "address": "fd00::2/64"}], dns={}),
            id="a label in new counts for nothing",
        ),
        pytest.param(
            new(ips=[{"address": "::ffff:10.0.0.2/120"}]),
            old(ip4={"ip": "10.0.0.2/24"}, dns={}),
            id="a mapped address is IPv4",
        ),
        pytest.param(
            new(ips=[{"address": "10.0.0.2/24", "interface": -1}], interfaces=[{}]),
            middle(ips=[{"version": "4", "interface": -1, "address": "10.0.0.2/24"}], interfaces=[{"name": ""}], dns={}),
            id="interface -1 and an interface without a name",
        ),
        pytest.param(
            new(routes=[{"dst": "10.1.2.3/8", "table": 0, "scope": 0, "mtu": 0, "priority": -1}], dns={"domain": ""}),
            new(routes=[{"dst": "10.1.2.3/8", "table": 0, "scope": 0, "priority": -1}]),
            id="what is printed when it is 0",
        ),
        pytest.param(
            {"CNIVERSION": "1.1.0", "cniVersion": "1.1.0", "IPS": [{"Address": "10.0.0.2/24", "GATEWAY": ""}], "x": 1},
            new(ips=[{"address": "10.0.0.2/24"}]),
            id="keys in any case, unknown ones dropped, empty gateway absent",
        ),
    ],
)
def test_conversion(body: dict[str, Any], converted: dict[str, Any]) -> None:
    assert convert(body, converted["cniVersion"]) == converted


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize(
    "body",
    [
        new(),
        middle(),
        new(routes=[{"dst": "::/0"}], dns=DNS),
        middle(ips=[{"version": "5", "address": "10.0.0.2/24"}]),
    ],
)
def test_old_needs_an_address(body: dict[str, Any], version: str) -> None:
    with pytest.raises(CniError) as caught:
        convert(body, version)
    assert (caught.value.code, caught.value.msg) == (999, "cannot convert: no valid IP addresses")


@pytest.mark.parametrize(
    ("body", "version", "problem"),
    [
        ({"cniVersion": "0.4.0"}, "1.0.0", 'result type supports [1.0.0 1.1.0] but unmarshalled CNIVersion is "0.4.0"'),
        ({"cniVersion": ""}, "1.1.0", 'result type supports [1.0.0 1.1.0] but unmarshalled CNIVersion is ""'),
        ({"cniVersion": "1.1.0"}, "0.3.1", 'result type supports [0.3.0 0.3.1 0.4.0] but unmarshalled CNIVersion is "1.1.0"'),
        ({"cniVersion": ""}, "0.4.0", 'result type supports [0.3.0 0.3.1 0.4.0] but unmarshalled CNIVersion is ""'),
        ({"cniVersion": "1.1.0"}, "0.1.0", 'result type supports [ 0.1.0 0.2.0] but unmarshalled CNIVersion is "1.1.0"'),
        ({}, "2.0.0", 'unsupported CNI result version "2.0.0"'),
        ({"ips": [{}]}, "1.1.0", "invalid CIDR address: "),
        ({"ips": [{"address": "10.0.0.2"}]}, "1.1.0", "invalid CIDR address: 10.0.0.2"),
        ({"ips": [{"address": "10.0.0.2/24", "gateway": "x"}]}, "0.4.0", "invalid IP address: x"),
        ({"ip4": {"ip": "10.0.0.2"}}, "0.2.0", "invalid CIDR address: 10.0.0.2"),
        ({"routes": [{}]}, "1.1.0", "invalid CIDR address: "),
        ({"routes": [{"dst": "::/0", "gw": "::1/64"}]}, "1.1.0", "invalid IP address: ::1/64"),
        ([], "1.1.0", "a result must be an object, not list"),
    ],
)
def test_refused(body: object, version: str, problem: str) -> None:
    with pytest.raises(CniError) as caught:
        result.decode(body, version)
    assert (caught.value.code, caught.value.msg) == (999, problem)


@pytest.mark.parametrize(
    "body",
    [
        {"cniVersion": 5},
        {"ips": {}},
        {"ips": [{"address": "10.0.0.2/24", "interface": 1.0}]},
        {"ips": [{"address": "10.0.0.2/24", "interface": "1"}]},
        {"interfaces": [{"mtu": True}]},
        {"routes": [{"dst": "::/0", "scope": "link"}]},
        {"dns": {"nameservers": "10.0.0.1"}},
    ],
)
def test_a_mistyped_key(body: dict[str, Any]) -> None:
    with pytest.raises(CniError) as caught:
        result.decode(json.loads(json.dumps(body), parse_float=config.Fraction), "1.1.0")
    assert caught.value.code == 999


def test_an_empty_version_is_fine_in_the_oldest_layout_only() -> None:
    assert result.decode({"cniVersion": "", "ip4": {"ip": "10.0.0.2/24"}}, "0.1.0").ips[0].address == "10.0.0.2/24"


TEXT = st.text(max_size=6).filter(lambda text: "\0" not in text)
TEXTS = st.lists(TEXT, max_size=2).map(tuple)
GATEWAY = st.just("") | st.ip_addresses(v=4).map(str) | st.sampled_from(["fd00::1", "::1"])
CIDR = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}") | st.integers(0, 128).map(
    lambda length: f"fd00::5/{length}"
)
NUMBER = st.integers(-(2**31), 2**32)
RESULTS = st.builds(
    Result,
    interfaces=st.lists(st.builds(Interface, TEXT, TEXT, NUMBER, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    ips=st.lists(st.builds(IpConfig, CIDR, GATEWAY, st.none() | NUMBER), max_size=3).map(tuple),
    routes=st.lists(
        st.builds(Route, CIDR, GATEWAY, NUMBER, NUMBER, NUMBER, st.none() | NUMBER, st.none() | NUMBER), max_size=3
    ).map(tuple),
    dns=st.builds(Dns, TEXTS, TEXT, TEXTS, TEXTS),
)


def _labelled(found: Result) -> Result:
    """As 0.3.0 to 0.4.0 tell it: with labels, without what they have no key for."""
    return msgspec.structs.replace(
        found,
        interfaces=tuple(Interface(each.name, each.mac, sandbox=each.sandbox) for each in found.interfaces),
        ips=tuple(msgspec.structs.replace(ip, version="6" if ":" in ip.address else "4") for ip in found.ips),
    )


@given(RESULTS)
def test_what_is_printed_is_read_again(found: Result) -> None:
    """Nothing is lost in the newest layout, and in the middle one nothing but what it has no key for."""
    for version, expected in (("1.1.0", found), ("0.4.0", _labelled(found))):
        text = result.text(result.encode(found, version))
        assert result.decode(json.loads(text), version) == expected
        assert not set(text.decode()) & set("<>&\u2028\u2029")


@given(RESULTS, st.sampled_from(result.VERSIONS), st.sampled_from(result.VERSIONS))
def test_converting_twice_is_converting_once(found: Result, first: str, second: str) -> None:
    """Down to a version and on to an older one loses no more than going there at once."""
    low, high = sorted((first, second))
    if not found.ips and family(low) == 0:
        return
    once = result.encode(found, low)
    way = result.decode(json.loads(result.text(result.encode(found, high))), high)
    assert result.text(result.encode(way, low)) == result.text(once)
