"""flannel: subnet.env and what becomes of it, byte for byte (flannel sheet 3, 4, 9)."""

import json
import pathlib
from typing import Any

import pytest

from ipcni.errors import CniError
from ipcni.parts.flannel_env import SubnetEnv, read
from ipcni.plugins.flannel import Conf, delegate_conf
from ipcni.protocol import config

E4 = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"
E6 = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"
ED = (
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_IPV6_NETWORK=fc00::/48\n"
    "FLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
)
EM = E4.replace("10.1.0.0/16", "10.1.0.0/16,192.168.0.0/16,10.1.0.0/16")
R4 = '"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"'
ROUTES = [
    {"dst": "10.96.0.0/12"},
    {
        "dst": "192.168.244.0/24",
        "gw": "10.1.17.20",
        "mtu": 1300,
        "advmss": 1260,
        "priority": 10,
        "table": 5,
        "scope": 253,
        "foo": 1,
    },
]
PORTS = {"portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]}


@pytest.fixture
def env(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "subnet.env"


def given(env: pathlib.Path, text: str, conf: dict[str, Any] | str) -> str:
    env.write_bytes(text.encode())
    body = config.parse((conf if isinstance(conf, str) else json.dumps(conf)).encode())
    return config.dump(delegate_conf("cbr0", config.decode(body, Conf), read(str(env)))).decode()


@pytest.mark.parametrize(
    ("text", "conf", "expected"),
    [
        (
            E4,
            {"cniVersion": "1.0.0"},
            f'{{"cniVersion":"1.0.0","ipMasq":false,"ipam":{{{R4}}},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}}',
        ),
        (
            E6,
            {"cniVersion": "1.0.0"},
            '{"cniVersion":"1.0.0","ipMasq":true,"ipam":{"ranges":[[{"subnet":"fc00::/64"}]],"routes":[{"dst":"fc00::/48"}],'
            '"type":"host-local"},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}',
        ),
        (
            ED,
            {"cniVersion": "1.0.0"},
            '{"cniVersion":"1.0.0","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}],[{"subnet":"fc00::/64"}]],'
            '"routes":[{"dst":"10.1.0.0/16"},{"dst":"fc00::/48"}],"type":"host-local"},"isGateway":true,"mtu":1450,'
            '"name":"cbr0","type":"bridge"}',
        ),
        (
            EM,
            {"cniVersion": "1.0.0"},
            '{"cniVersion":"1.0.0","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],'
            '"routes":[{"dst":"10.1.0.0/16"},{"dst":"192.168.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1472,'
            '"name":"cbr0","type":"bridge"}',
        ),
        (E4, {}, f'{{"ipMasq":false,"ipam":{{{R4}}},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}}'),
        (
            E4,
            {"delegate": {"cniVersion": "0.3.1"}},
            f'{{"cniVersion":"0.3.1","ipMasq":false,"ipam":{{{R4}}},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}}',
        ),
        (
            E4,
            {
                "cniVersion": "0.3.1",
                "delegate": {"hairpinMode": True, "isDefaultGateway": True},
                "capabilities": {"portMappings": True},
                "runtimeConfig": {**PORTS, "mac": "c2:00:00:00:00:01"},
            },
            f'{{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{{{R4}}},"isDefaultGateway":true,"isGateway":true,'
            '"mtu":1472,"name":"cbr0","runtimeConfig":{"mac":"c2:00:00:00:00:01","portMappings":[{"containerPort":80,'
            '"hostPort":80,"protocol":"tcp"}]},"type":"bridge"}',
        ),
        (
            ED,
            {
                "cniVersion": "0.3.1",
                "ipam": {
                    "type": "my-ipam",
                    "unknown-param": "unknown-value",
                    "dataDir": "/x",
                    "subnet": "1.2.3.0/24",
                    "ranges": [[{"subnet": "9.9.9.0/24"}]],
                    "routes": ROUTES,
                },
            },
            '{"cniVersion":"0.3.1","ipMasq":false,"ipam":{"dataDir":"/x","ranges":[[{"subnet":"10.1.17.0/24"}],'
            '[{"subnet":"fc00::/64"}]],"routes":[{"dst":"10.96.0.0/12"},{"dst":"192.168.244.0/24","gw":"10.1.17.20",'
            '"mtu":1300,"advmss":1260,"priority":10,"table":5,"scope":253},{"dst":"10.1.0.0/16"},{"dst":"fc00::/48"}],'
            '"subnet":"1.2.3.0/24","type":"my-ipam","unknown-param":"unknown-value"},"isGateway":true,"mtu":1450,'
            '"name":"cbr0","type":"bridge"}',
        ),
        (
            E4,
            {"cniVersion": "0.3.1", "delegate": {"type": "ipvlan", "master": "eth0"}},
            f'{{"cniVersion":"0.3.1","ipMasq":false,"ipam":{{{R4}}},"master":"eth0","mtu":1472,"name":"cbr0","type":"ipvlan"}}',
        ),
        (
            E4,
            '{"cniVersion":"0.3.1","delegate":{"bridge":"mynet0","mtu":1400,"ipMasq":true,"isGateway":false,'
            '"cniVersion":"0.1.0","vlan":5.0,"html":"<a&b>","runtimeConfig":{"x":1}}}',
            f'{{"bridge":"mynet0","cniVersion":"0.3.1","html":"\\u003ca\\u0026b\\u003e","ipMasq":true,"ipam":{{{R4}}},'
            '"isGateway":false,"mtu":1400,"name":"cbr0","runtimeConfig":{"x":1},"type":"bridge","vlan":5}',
        ),
        (
            E4,
            {"cniVersion": "0.3.1", "delegate": None, "ipam": None, "runtimeConfig": None, "prevResult": {}, "dns": {}},
            f'{{"cniVersion":"0.3.1","ipMasq":false,"ipam":{{{R4}}},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}}',
        ),
        (
            E4,
            {"CNIVersion": "0.3.1", "RuntimeConfig": {}},
            f'{{"cniVersion":"0.3.1","ipMasq":false,"ipam":{{{R4}}},"isGateway":true,"mtu":1472,"name":"cbr0",'
            '"runtimeConfig":{},"type":"bridge"}',
        ),
        (
            E4.replace("true", "True"),
            {"cniVersion": "1.0.0"},
            f'{{"cniVersion":"1.0.0","ipMasq":true,"ipam":{{{R4}}},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}}',
        ),
    ],
)
def test_the_delegate_is_given_what_go_gives_it(env: pathlib.Path, text: str, conf: dict[str, Any] | str, expected: str) -> None:
    assert given(env, text, conf) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "foo=bar",
            "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ",
        ),
        (
            "",
            "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ",
        ),
        (E4.replace("FLANNEL_MTU", "X"), "is missing FLANNEL_MTU."),
        (E4.replace("FLANNEL_IPMASQ", "X"), "is missing FLANNEL_IPMASQ."),
        (E4.replace("FLANNEL_SUBNET", "X"), "is missing FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET."),
        (E4.replace("FLANNEL_SUBNET", "export FLANNEL_SUBNET"), "is missing FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET."),
        (E4.replace("1472", "abc"), 'strconv.ParseUint: parsing "abc": invalid syntax'),
        (E4.replace("1472", "-1"), 'strconv.ParseUint: parsing "-1": invalid syntax'),
        (E4.replace("1472", " 1472"), 'strconv.ParseUint: parsing " 1472": invalid syntax'),
        (E4.replace("1472", "4294967296"), 'strconv.ParseUint: parsing "4294967296": value out of range'),
        (E4.replace("1472", "9" * 5000), "value out of range"),
        (E4.replace("10.1.17.1/24", "10.1.17.1"), "invalid CIDR address: 10.1.17.1"),
        (E4.replace("10.1.17.1/24", ""), "invalid CIDR address: ."),
        (E4.replace("10.1.17.1/24", '"10.1.17.1/24"'), 'invalid CIDR address: "10.1.17.1/24"'),
        (E4.replace("10.1.0.0/16", "10.1.0.0/16, 10.2.0.0/16"), "invalid CIDR address:  10.2.0.0/16"),
        (E4.replace("FLANNEL_MTU=1472", "FLANNEL_MTU"), "line 3: FLANNEL_MTU has no value"),
    ],
)
def test_a_bad_file_is_told_of(env: pathlib.Path, text: str, said: str) -> None:
    env.write_text(text)
    with pytest.raises(CniError) as caught:
        read(str(env))
    assert caught.value.msg.startswith("failed to load flannel 'subnet.env' file: ")
    assert said in caught.value.msg
    assert caught.value.msg.endswith(". Check the flannel pod log for this node.")
    assert str(env) in str(caught.value)


def test_a_missing_file_is_told_of() -> None:
    with pytest.raises(CniError, match="open /nowhere/subnet.env: no such file or directory"):
        read("/nowhere/subnet.env")


@pytest.mark.parametrize(
    "text",
    [
        E4.replace("\n", "\r\n"),
        "# a comment\n\n" + E4 + "FLANNEL_OTHER=1",
        E4.replace("FLANNEL_MTU=", "FLANNEL_MTU=9\nFLANNEL_MTU="),
    ],
)
def test_forms_of_the_same_file(env: pathlib.Path, text: str) -> None:
    env.write_bytes(text.encode())
    assert read(str(env)) == SubnetEnv(("10.1.0.0/16",), ("10.1.17.0/24",), 1472, True)


def test_no_mtu_is_an_mtu_of_0(env: pathlib.Path) -> None:
    env.write_text(E4.replace("1472", "0"))
    assert read(str(env)).mtu == 0


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"delegate": {"type": 5}}, "'delegate' dictionary, if present, must have (string) 'type' field"),
        ({"delegate": {"name": "x"}}, "'delegate' dictionary must not have 'name' field, it'll be set by flannel"),
        ({"delegate": {"ipam": {}}}, "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel"),
        ({"delegate": []}, "delegate"),
        (
            {"ipam": {"routes": [{"dst": "zzz"}]}},
            "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes: invalid CIDR address: zzz",
        ),
    ],
)
def test_a_bad_config_is_told_of(env: pathlib.Path, conf: dict[str, Any], said: str) -> None:
    with pytest.raises(CniError) as caught:
        given(env, E4, conf)
    assert said in caught.value.msg
