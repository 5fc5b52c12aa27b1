"""No configuration makes a plugin answer anything else than a result or an error that says what is wrong with it."""

import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipcni.protocol import result, skel
from ipcni.protocol.host import Host
from ipcni.settings import Settings
from tests.lab import BIN
from tests.nowhere import Nowhere

PLUGINS = ["bridge", "host-local", "loopback", "portmap", "static"]
ENV = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/none-such",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": str(BIN),
    "IPCNI_LOG_DIR": "/dev/null/no-journal",
    "IPCNI_STATE_DIR": "/dev/null/no-state",
}

_DNS = {"nameservers": ["1.1.1.1"], "domain": "d", "search": ["s"], "options": ["o"]}
_ROUTE = {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 7, "scope": 0}
_SIX = {"subnet": "fd00::/64", "rangeStart": "fd00::3", "rangeEnd": "fd00::9", "gateway": "fd00::1"}
_FOUR = {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.3", "rangeEnd": "10.0.0.9", "gateway": "10.0.0.1"}

_PORT = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}

# Every typed key of these plugins, with a value that is fine.
FULL: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net1",
    "bridge": "br-fuzz0",
    "isGateway": True,
    "isDefaultGateway": True,
    "forceAddress": True,
    "ipMasq": True,
    "ipMasqBackend": "iptables",
    "mtu": 1400,
    "hairpinMode": False,
    "promiscMode": True,
    "vlan": 5,
    "vlanTrunk": [{"id": 7}, {"minID": 1, "maxID": 3}],
    "preserveDefaultVlan": True,
    "macspoofchk": True,
    "enabledad": True,
    "disableContainerInterface": False,
    "portIsolation": True,
    "backend": "iptables",
    "snat": True,
    "masqAll": True,
    "markMasqBit": 13,
    "conditionsV4": ["-s", "192.0.2.1"],
    "conditionsV6": ["!", "-d", "fd00::1"],
    "args": {"cni": {"mac": "0a:58:0a:00:00:05", "ips": ["10.1.0.7/24"]}},
    "runtimeConfig": {"mac": "0a:58:0a:00:00:05", "ips": ["10.0.0.8/24"], "ipRanges": [[_FOUR]], "portMappings": [_PORT]},
    "dns": _DNS,
    "ipam": {
        "type": "host-local",
        "addresses": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}],
        "ranges": [[_SIX]],
        "subnet": "10.1.0.0/24",
        "rangeStart": "10.1.0.3",
        "rangeEnd": "10.1.0.9",
        "gateway": "10.1.0.1",
        "dataDir": "/nonexistent/networks",
        "resolvConf": "/etc/hosts",
        "routes": [_ROUTE],
        "dns": _DNS,
    },
    "prevResult": {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br-fuzz0", "mac": "0a:58:0a:00:00:05"},
            {"name": "eth0", "mtu": 1400, "sandbox": "/run/netns/none-such", "socketPath": "/x", "pciID": "p"},
        ],
        "ips": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1", "interface": 1}],
        "routes": [_ROUTE],
        "dns": _DNS,
    },
    "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "b"}],
}

HOSTILE: list[object] = [
    *(None, True, -1, 0, 4095, 65536, 2**31, 2**63, 10**30, 1.5, 1e300, float("inf")),
    *(
        "",
        " ",
        "x",
        "-rf",
        "%d",
        ".",
        "../..",
        "/",
        "é" * 9,
        "\u2028",
        "9" * 400,
        "a\0b",
        "a\nb",
        "a\rb",
        "a'\"$(id)`id`;#",
        "\ud800",
    ),
    *(
        "10.0.0.1",
        "10.0.0.1/33",
        "10.0.0.1/٣",
        "010.0.0.1/24",
        "fd00::5",
        "::/0",
        "0.0.0.0/0",
        "::ffff:1.2.3.4/20",
        "fe80::1%e/64",
    ),
    *("255.255.255.255/32", "static", "no-such", "0.4.0", "0.1.0", "ff:ff", "0a-58-0a-00-00-05"),
    *([], [None], ["x"], [["x"]], [[]], [[{}]], [{}], [{"x": 1}], {}, {"x": {}}, {"cni": 1}, {"minID": 1}, {"subnet": "::/0"}),
]

Path = tuple[Any, ...]


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The place of everything below the top, containers too."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _paths(value[key], (*path, key))


PATHS = list(_paths(FULL))
_IPAM_READS = {"cniVersion", "name", "ipam", "args", "runtimeConfig", "prevResult", "cni.dev/valid-attachments"}
_PORTMAP_READS = {"backend", "snat", "masqAll", "markMasqBit", "conditionsV4", "conditionsV6", "runtimeConfig", "prevResult"}
_READS = {
    "bridge": set(FULL) - (_PORTMAP_READS - {"runtimeConfig"}),
    "host-local": _IPAM_READS,
    "loopback": {"cniVersion", "name", "prevResult"},
    "portmap": _PORTMAP_READS,
    "static": _IPAM_READS,
}


def _of_interest(plugin: str) -> list[Path]:
    """What the plugin reads; what bridge leaves to the plugin it delegates to is tried with that one."""
    others = {("ipam", key) for key in FULL["ipam"] if key != "type"} if plugin == "bridge" else set()
    return [path for path in PATHS if path[0] in _READS[plugin] and path[:2] not in others]


def _put(conf: Any, path: Path, value: object) -> None:
    """Puts a value into its place; where an earlier one has taken the place away, nothing is done."""
    *way, last = path
    for step in way:
        try:
            conf = conf[step]
        except (LookupError, TypeError):
            return
    if isinstance(conf, dict) or (isinstance(conf, list) and isinstance(last, int) and last < len(conf)):
        conf[last] = value


def _nowhere(given: Settings, env: Mapping[str, str]) -> Host:
    return Nowhere(given, env)


def _ask(plugin: str, verb: str, changes: list[tuple[Path, object]], args: str = "") -> None:
    """One call with those changes to FULL; its answer must be one of the protocol's, and no confession of a defect."""
    conf = copy.deepcopy(FULL)
    for path, value in changes:
        _put(conf, path, copy.deepcopy(value))
    stdin = json.dumps(conf).encode()
    answer = skel.handle(plugin, {**ENV, "CNI_COMMAND": verb, "CNI_ARGS": args}, lambda: stdin, _nowhere)
    assert answer.stderr == ""
    if answer.status:
        error = json.loads(answer.stdout)
        assert answer.status == 1
        assert {"code", "msg"} <= set(error) <= {"code", "msg", "details"}
        assert error["msg"]
        assert not error["msg"].startswith("internal error"), (changes, error)
    elif verb == "ADD":
        version = json.loads(answer.stdout)["cniVersion"]
        assert version == (conf.get("cniVersion") or "0.1.0")
        assert result.text(result.encode(result.decode(json.loads(answer.stdout), version), version)) == answer.stdout
    else:
        assert answer.stdout == b""


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_full_configuration_is_fine(plugin: str) -> None:
    """Were it not, the tests below would all stop at the same error."""
    answer = skel.handle(plugin, {**ENV, "CNI_COMMAND": "ADD"}, json.dumps(FULL).encode, _nowhere)
    assert answer.status == 0, answer
    if plugin in ("bridge", "host-local"):
        assert [ip["address"] for ip in json.loads(answer.stdout)["ips"]] == ["10.0.0.8/24", "10.1.0.7/24", "fd00::3/64"]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_one_hostile_value_at_a_time(plugin: str) -> None:
    for path, value in itertools.product(_of_interest(plugin), HOSTILE):
        _ask(plugin, "ADD", [(path, value)])


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_one_hostile_value_for_the_other_verbs(plugin: str, verb: str) -> None:
    for number, path in enumerate(_of_interest(plugin)):
        for value in HOSTILE[number % 7 :: 7]:
            _ask(plugin, verb, [(path, value)])
    for value in HOSTILE if verb in ("DEL", "CHECK") else ():
        _ask(plugin, verb, [(("prevResult",), value)])


ARGS = st.lists(
    st.tuples(
        st.sampled_from(["IP", "MAC", "GATEWAY", "IgnoreUnknown", "X", ""]),
        st.sampled_from(["=", "", "=="]),
        st.sampled_from([value for value in HOSTILE if isinstance(value, str) and "\0" not in value]),
    ),
    max_size=3,
).map(lambda pairs: ";".join(map("".join, pairs)))


@settings(max_examples=400, deadline=None)
@given(
    plugin=st.sampled_from(PLUGINS),
    verb=st.sampled_from(["ADD", "ADD", "ADD", "DEL", "CHECK", "GC", "STATUS"]),
    changes=st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(HOSTILE)), max_size=6),
    args=ARGS,
)
def test_several_hostile_values(plugin: str, verb: str, changes: list[tuple[Path, object]], args: str) -> None:
    _ask(plugin, verb, changes, args)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f'{{"name":"n","cniVersion":{json.dumps(text)}}}'.encode()))
def test_any_bytes_on_stdin(data: bytes) -> None:
    answer = skel.handle("static", {**ENV, "CNI_COMMAND": "CHECK"}, lambda: data, _nowhere)
    assert answer.status == 1
    assert json.loads(answer.stdout)["code"] in (1, 6, 7, 999)
    assert b"internal error" not in answer.stdout
