"""Whatever stands in a configuration or an environment is a value: no shell reads it, and what cannot be is refused by name."""

import copy
import json
import pathlib
import shlex
import sys
from typing import Any

import pytest

from tests import serve
from tests.lab import BIN, Node
from tests.remains import network, published, remains

# Where a shell read one of these, there would be a file X.
TEXTS = {
    "substitution": "$(touch X)",
    "short substitution": "$(>X)",
    "backticks": "`touch X`",
    "short backticks": "`>X`",
    "semicolon": "; touch X",
    "short semicolon": ";>X;",
    "newline": "a\ntouch X\n",
    "return": "a\rtouch X\r\n",
    "quote": "'; touch X; '",
    "double quote": '"; touch X; "',
    "backslash": "\\'; touch X; \\",
    "pipe": "|touch X",
    "ampersand": "&touch X&",
    "redirection": " > X",
    "short redirection": ">X",
    "comment": "#a\n#: undo touch X",
    "option": "-h",
    "long option": "--help",
    "format": "%d%s%n",
    "path": "../../x",
    "snowman": "☃ü",
    "brace": "{{ 7*7 }}{% raw %}",
    "long": "x" * 300,
    "NUL": "a\0b",
    "surrogate": "\ud800",
    "blank": " ",
}
ENV = {
    "FLANNEL_NETWORK": "10.44.0.0/16",
    "FLANNEL_SUBNET": "10.44.0.1/24",
    "FLANNEL_MTU": "1450",
    "FLANNEL_IPMASQ": "true",
}


def flannel(node: Node) -> dict[str, Any]:
    return {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "flannel",
        "subnetFile": str(node.folder / "subnet.env"),
        "dataDir": str(node.folder / "flannel"),
        "delegate": {"type": "bridge", "bridge": "br1", "ipMasq": True},
        "ipam": {"type": "host-local", "dataDir": node.data_dir, "routes": [{"dst": "10.0.0.0/8"}]},
    }


def bridge(node: Node) -> dict[str, Any]:
    conf = network(node, dns={"domain": "d", "nameservers": ["10.0.0.1"]})
    conf["ipam"]["routes"] = [{"dst": "10.0.0.0/8", "gw": "10.44.0.1"}]
    return conf


def portmap(node: Node) -> dict[str, Any]:
    return {**published(), "conditionsV4": ["-m", "comment", "--comment", "a"]}


def nftables(node: Node) -> dict[str, Any]:
    return {**published(), "backend": "nftables", "conditionsV4": ["ip", "saddr", "10.0.0.0/8"]}


CONFS = {"bridge": bridge, "portmap": portmap, "nftables": nftables, "flannel": flannel}
# Which error codes an ADD may answer with (0: it may succeed) when the key is hostile, all other things being right.
KEYS: dict[str, dict[str, set[int]]] = {
    "bridge": {
        "cniVersion": {1, 6},
        "name": {0, 5, 7, 999},
        "bridge": {0, 999},
        "ipMasqBackend": {999},
        "ipam.type": {999},
        "ipam.dataDir": {0, 5, 7, 999},
        "ipam.resolvConf": {7, 999},
        "ipam.subnet": {999},
        "ipam.ranges.0.0.subnet": {999},
        "ipam.ranges.0.0.rangeStart": {999},
        "ipam.ranges.0.0.rangeEnd": {999},
        "ipam.ranges.0.0.gateway": {999},
        "ipam.routes.0.dst": {999},
        "ipam.routes.0.gw": {999},
        "runtimeConfig.mac": {999},
        "runtimeConfig.ips.0": {999},
        "args.cni.mac": {999},
        "args.cni.ips.0": {999},
        "dns.domain": {0, 999},
        "dns.nameservers.0": {0, 999},
    },
    "portmap": {
        "backend": {999},
        "externalSetMarkChain": {999},
        "conditionsV4.3": {0, 999},
        "conditionsV4.0": {999},
        "runtimeConfig.portMappings.0.hostIP": {999},
        "runtimeConfig.portMappings.0.protocol": {999},
        "prevResult.ips.0.address": {999},
        "prevResult.cniVersion": {1, 6, 999},
    },
    "nftables": {
        "conditionsV4.0": {999},
        "conditionsV4.2": {999},
        "runtimeConfig.portMappings.0.hostIP": {999},
        "runtimeConfig.portMappings.0.protocol": {999},
    },
    "flannel": {
        "name": {0, 5, 7, 999},
        "subnetFile": {999},
        "dataDir": {0, 999},
        "delegate.type": {999},
        "delegate.bridge": {0, 999},
        "delegate.name": {999},
        "ipam.type": {999},
        "ipam.dataDir": {0, 5, 7, 999},
        "ipam.routes.0.dst": {999},
        "runtimeConfig.mac": {999},
    },
}
VARIABLES = {
    "CNI_CONTAINERID": {0, 4, 999},  # a file cannot have a name of 300 letters
    "CNI_IFNAME": {0, 4, 999},
    "CNI_NETNS": {999, 8},
    "CNI_PATH": {999},
    "CNI_ARGS": {0, 999},
    "CNI_ARGS MAC=": {999},
    "CNI_ARGS IP=": {999},
    "CNI_ARGS IgnoreUnknown=1;K8S_POD_NAME=": {0, 999},
}
Call = tuple[str, dict[str, str], str]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where the marker would appear: the working directory of everything."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "subnet.env").write_text("".join(f"{key}={value}\n" for key, value in ENV.items()))
    return folder


def put(conf: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """The configuration with another value at a dotted key."""
    conf = copy.deepcopy(conf)
    at: Any = conf
    *folders, last = key.split(".")
    for each in folders:
        empty: Any = [] if last.isdigit() and each == folders[-1] else {}
        at = at[int(each)] if isinstance(at, list) else at.setdefault(each, empty)
    if not isinstance(at, list):
        at[last] = value
    elif int(last) < len(at):
        at[int(last)] = value
    else:
        at.append(value)
    return conf


def calls(node: Node, calls: list[Call]) -> list[tuple[int, str, str]]:
    text = json.dumps([(plugin, {**node.env, "CNI_PATH": str(BIN), **env}, conf) for plugin, env, conf in calls])
    done = node.run(sys.executable, serve.__file__, input=text)
    assert done.stderr == ""
    return [tuple(answer) for answer in json.loads(done.stdout)]


def both(plugin: str, env: dict[str, str], conf: dict[str, Any]) -> list[Call]:
    """ADD and DEL."""
    text = json.dumps(conf)
    return [(plugin, {**env, "CNI_COMMAND": verb}, text) for verb in ("ADD", "DEL")]


def judged(node: Node, folder: pathlib.Path, key: str, codes: set[int], asked: dict[str, list[Call]]) -> None:
    """Runs all calls; every ADD ends in one of these ways, nothing is left, and no word of a value became a word of a command."""
    answers = calls(node, [call for pair in asked.values() for call in pair])
    wrong = []
    for at, (title, pair) in enumerate(asked.items()):
        status, out, err = answers[2 * at]
        error = json.loads(out) if status else {"code": 0, "msg": ""}
        said = f"{error['msg']} {error.get('details', '')}"
        if error["code"] not in codes or status not in (0, 1) or err or "internal error" in said or "Traceback" in said:
            wrong.append(f"{title}: {pair[0]}: {out or 'fine'} {err}")
        if status and not told(said, key, TEXTS[title], pair[0][1]):
            wrong.append(f"{title}: does not say that {key} is wrong: {said}")
        if "internal error" in answers[2 * at + 1][1]:
            wrong.append(f"{title} DEL: {answers[2 * at + 1][1]}")
    assert not wrong, "\n".join(wrong)
    assert list(folder.rglob("X")) == []
    assert remains(node) == {}
    for record in node.journal():
        for entry in record["commands"]:
            assert not {"touch", "X"} & set(words(entry)), entry


_CALLED = {"CNI_IFNAME": "interface name", "CNI_ARGS": "ARGS:", "CNI_CONTAINERID": "containerID"}


def told(said: str, key: str, value: str, env: dict[str, str]) -> bool:
    """Whether an error text leads to the culprit: by the key's name, or by the value, however it is quoted."""
    variable = key.partition(" ")[0]
    names = [variable, _CALLED.get(variable, key), *(part for part in key.split(".") if not part.isdigit())]
    values = [value.replace("\ud800", "\ufffd"), env.get(variable, value).rpartition("=")[2]]
    values += [part[:5] for part in value.replace("\\", " ").split() if part.isprintable()]
    return any(name.lower() in said.lower() for name in names) or any(each in said for each in values)


def words(entry: dict[str, Any]) -> list[str]:
    """The words that the kernel, or the tool that reads a batch, gets."""
    found = list(entry.get("argv", ()))
    if found and "nft" not in found[0]:
        for line in entry.get("stdin", "").split("\n"):
            found += shlex.split(line) if "iptables" not in " ".join(found) or '"' in line else line.split()
    return found


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in KEYS.items() for key in keys])
def test_a_key(node: Node, folder: pathlib.Path, name: str, key: str) -> None:
    plugin = "portmap" if name == "nftables" else name
    env = {"CNI_CONTAINERID": "cid1", "CNI_IFNAME": "eth0", "CNI_NETNS": node.pod().path}
    conf = CONFS[name](node)
    conf["type"] = plugin
    prefix = f"{node.folder}/lib/" if key.endswith(("dataDir", "subnetFile")) else ""
    asked = {title: both(plugin, env, put(conf, key, prefix + text)) for title, text in TEXTS.items()}
    judged(node, folder, key, KEYS[name][key], asked)
    for each in folder.parent.glob("lib/**/10.44.*"):
        assert each.read_text() == "", "a lease is left"


@pytest.mark.parametrize(
    ("plugin", "variable"),
    [(plugin, variable) for plugin in ("bridge", "flannel") for variable in VARIABLES]
    + [("portmap", "CNI_CONTAINERID"), ("portmap", "CNI_IFNAME")],
)
def test_a_variable(node: Node, folder: pathlib.Path, plugin: str, variable: str) -> None:
    env = {"CNI_CONTAINERID": "cid1", "CNI_IFNAME": "eth0", "CNI_NETNS": node.pod().path}
    name, _, prefix = variable.partition(" ")
    codes = VARIABLES[variable] | ({0} if plugin == "portmap" else set())
    asked = {}
    for title, text in TEXTS.items():
        if "\0" not in text:  # which the kernel does not let through
            value = text.encode("utf-8", "replace").decode()
            asked[title] = both(plugin, {**env, name: prefix + value}, CONFS[plugin](node))
    judged(node, folder, variable, codes, asked)


@pytest.mark.parametrize("key", ENV)
def test_subnet_env(node: Node, folder: pathlib.Path, key: str) -> None:
    env = {"CNI_CONTAINERID": "cid1", "CNI_IFNAME": "eth0", "CNI_NETNS": node.pod().path}
    asked = {}
    for number, (title, text) in enumerate(TEXTS.items()):
        path = node.folder / f"{number}.env"
        lines = {**ENV, key: text}
        path.write_bytes("".join(f"{name}={value}\n" for name, value in lines.items()).encode("utf-8", "replace"))
        asked[title] = both("flannel", env, {**flannel(node), "subnetFile": str(path)})
    judged(node, folder, f"{key} subnet.env", {0, 999} if key == "FLANNEL_IPMASQ" else {999}, asked)
