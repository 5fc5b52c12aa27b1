"""`ipcni run`, as a process."""

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from ipcni.cli import options
from tests.lab import BIN, ENTRY_PATH, GO, Answer, Node
from tests.stubs import Stubs

IPCNI = str(BIN / "ipcni")
FIVE = {"cniVersion": "1.1.0", "ips": [{"address": "10.44.0.5/24"}]}
BLUE = "cnitool-df26705e2e4ffd095eb1"


class Tool(Stubs):
    """The command, with the network `net` of one stub plugin in its configuration folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.stub("a", FIVE)
        self.conf_dir = folder / "net.d"
        self.conf_dir.mkdir()
        self.network("10-net.conflist", "net", {"type": "a", "capabilities": {"mac": True}})
        self.results = folder / "cache" / "results"

    def network(self, file: str, name: str, *plugins: dict[str, Any]) -> pathlib.Path:
        path = self.conf_dir / file
        path.write_text(json.dumps({"cniVersion": "1.1.0", "name": name, "plugins": plugins}))
        return path

    def __call__(self, *words: str, env: Mapping[str, str] | None = None, options: bool = True) -> Answer:
        folders = ["--conf-dir", str(self.conf_dir), "--cni-path", str(self.bin), "--cache-dir", str(self.folder / "cache")]
        done = subprocess.run(
            [IPCNI, "run", *(folders if options else []), *words],
            env={"PATH": ENTRY_PATH, **(env or {})},
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr.decode())


@pytest.fixture
def tool(tmp_path: pathlib.Path) -> Tool:
    """The command and a stub plugin."""
    return Tool(tmp_path)


def refused(answer: Answer) -> str:
    """The line on stderr; nothing is on stdout."""
    assert (answer.status, answer.stdout) == (1, b""), answer
    lines = answer.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ipcni: ")
    return lines[0].removeprefix("ipcni: ")


def test_add_check_del(tool: Tool) -> None:
    """ADD prints the result; the namespace's name gives its path and the container id."""
    answer = tool("add", "net", "--netns", "blue", "--args", "A=b;C=d", "--capability-args", '{"mac":"m","x":1}')
    assert answer.ok() == FIVE
    assert answer.stdout.startswith(b'{\n    "cniVersion": "1.1.0",\n')
    env = tool.calls[0].env
    assert [env[f"CNI_{name}"] for name in ("CONTAINERID", "NETNS", "IFNAME", "ARGS", "PATH")] == [
        BLUE,
        "/run/netns/blue",
        "eth0",
        "A=b;C=d",
        str(tool.bin),
    ]
    assert tool.calls[0].conf["runtimeConfig"] == {"mac": "m"}
    assert os.listdir(tool.results) == [f"net-{BLUE}-eth0"]
    for verb in ("Check", "DEL"):
        assert (tool(verb, "net", "--netns", "blue").ok(), tool.calls[-1].conf["prevResult"]) == (None, FIVE)
    assert tool.told == ["a ADD", "a CHECK", "a DEL"]
    assert os.listdir(tool.results) == []


def test_it_takes_what_cnitool_takes(tool: Tool) -> None:
    """Network and namespace as words, the rest in the environment."""
    env = {
        "NETCONFPATH": str(tool.conf_dir),
        "CNI_PATH": str(tool.bin),
        "CNI_IFNAME": "eth1",
        "CNI_ARGS": "A=b",
        "CAP_ARGS": '{"mac":"m"}',
    }
    words = ("add", "net", "/run/netns/blue", "--cache-dir", str(tool.folder / "cache"))
    assert tool(*words, env=env, options=False).ok() == FIVE
    call = tool.calls[0]
    assert [call.env[f"CNI_{name}"] for name in ("CONTAINERID", "IFNAME", "ARGS")] == [BLUE, "eth1", "A=b"]
    assert call.conf["runtimeConfig"] == {"mac": "m"}


def test_the_network_is_a_name_or_a_file_or_the_one_a_kubelet_would_pick(tool: Tool) -> None:
    tool.stub("b")
    file = tool.network("20-other.conflist", "other", {"type": "b"})
    for words in (["other"], [str(file)], [os.path.relpath(file, tool.folder)], []):
        tool("DEL", *words, "--container-id", "c1")
    assert [call.plugin for call in tool.calls] == ["b", "b", "b", "a"]


def test_del_needs_no_namespace(tool: Tool) -> None:
    assert tool("DEL", "net", "--container-id", "c1").ok() is None
    assert (tool.calls[0].env["CNI_CONTAINERID"], tool.calls[0].env["CNI_NETNS"]) == ("c1", "")


def test_gc(tool: Tool) -> None:
    """With --valid the others are deleted; without, all."""
    for container_id in ("c1", "c2", "c3"):
        tool("ADD", "net", "--netns", "blue", "--container-id", container_id)
    assert tool("GC", "net", "--valid", "c1/eth0", "--valid", "c3/eth0").ok() is None
    assert sorted(os.listdir(tool.results)) == ["net-c1-eth0", "net-c3-eth0"]
    gc = tool.calls[-1]
    assert gc.verb == "GC"
    assert gc.conf["cni.dev/valid-attachments"] == [{"containerID": each, "ifname": "eth0"} for each in ("c1", "c3")]
    assert tool("GC", "net").ok() is None
    assert os.listdir(tool.results) == []
    assert "cni.dev/valid-attachments" not in tool.calls[-1].conf


def test_gc_tells_all_that_failed(tool: Tool) -> None:
    tool("ADD", "net", "--netns", "blue")
    for verb in ("DEL", "GC"):
        tool.stub("a", '{"code":7,"msg":"no"}', status=1, verb=verb)
    answer = tool("GC", "net")
    assert (answer.status, len(answer.stderr.splitlines())) == (1, 2)


def test_status(tool: Tool) -> None:
    assert tool("STATUS", "net").ok() is None
    tool.stub("a", '{"code":50,"msg":"full","details":"no address left"}', status=1, verb="STATUS")
    assert refused(tool("STATUS", "net")) == "full; no address left"


def test_a_plugins_stderr_passes_through(tool: Tool) -> None:
    tool.stub("a", FIVE, err="a word\n")
    answer = tool("ADD", "net", "--netns", "blue")
    assert (answer.ok(), answer.stderr) == (FIVE, "a word\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ADD", "none", "--netns", "blue"], 'no net configuration with name "none" in {0}/net.d'),
        (["ADD", "none.conflist", "--netns", "blue"], "error reading none.conflist: No such file or directory"),
        (["ADD", "./none", "--netns", "blue"], "error reading ./none: No such file or directory"),
        (["ADD", "net"], "no pod is named; give --netns NAME|PATH, or --container-id where its namespace is gone"),
        (["ADD", "net", "--netns", "blue", "--args", "A"], 'invalid CNI_ARGS pair "A"; --args takes K=V;K2=V2'),
        (
            ["ADD", "net", "--netns", "blue", "--capability-args", '{"mac":NaN}'],
            "--capability-args is no JSON: invalid literal NaN",
        ),
        (["ADD", "net", "--netns", "blue", "--capability-args", "[]"], "--capability-args must be a JSON object, by capability"),
        (["GC", "net", "--valid", "c1"], "no attachment: c1; --valid takes CONTAINER_ID/IFNAME, as in 3f9c/eth0"),
        (
            ["ADD", "net", "--netns", "blue", "--cni-path", "/none"],
            'plugin type="a" failed (add): failed to find plugin "a" in path [/none]…',
        ),
    ],
)
def test_what_it_refuses(tool: Tool, words: list[str], said: str) -> None:
    line = refused(tool(*words))
    expected = said.format(tool.folder)
    assert line.startswith(expected[:-1]) if expected.endswith("…") else line == expected


@pytest.mark.parametrize("words", [["FROB", "net"], [], ["ADD", "net", "blue", "more"], ["ADD", "--frob"]])
def test_wrong_usage(tool: Tool, words: list[str]) -> None:
    answer = tool(*words)
    assert (answer.status, answer.stdout) == (2, b"")


def test_help_has_an_example(tool: Tool) -> None:
    answer = tool("--help")
    assert answer.status == 0
    assert b"ipcni run ADD cbr0 --netns blue" in answer.stdout


@pytest.mark.parametrize(
    ("netns", "container_id"),
    [("/var/run/netns/testing", "cnitool-77383ca0a0715733ca6f"), ("/run/netns/blue", BLUE)],
)
def test_the_container_id_is_cnitools(netns: str, container_id: str) -> None:
    assert options.cnitool_id(netns) == container_id


def test_a_namespaces_path() -> None:
    assert options.netns_path("blue") == "/run/netns/blue"
    assert options.netns_path("/proc/1/ns/net") == "/proc/1/ns/net"
    assert options.netns_path("ns/../x") == f"{os.getcwd()}/x"


@pytest.mark.parametrize(("suite", "version"), [(BIN, "1.1.0"), (GO, "1.0.0")], ids=["ours", "go"])
def test_with_real_plugins(node: Node, tmp_path: pathlib.Path, suite: pathlib.Path, version: str) -> None:
    """loopback and bridge with host-local, in a pod: what ADD made CHECK finds, and DEL takes away."""
    pod = node.pod()
    conf = tmp_path / "net.conflist"
    ipam = {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": node.data_dir}
    plugins = [{"type": "bridge", "isGateway": True, "ipam": ipam}, {"type": "loopback"}]
    conf.write_text(json.dumps({"cniVersion": version, "name": "net", "plugins": plugins}))

    def run(verb: str) -> Answer:
        words = ["run", verb, str(conf), "--netns", pod.name, "--cni-path", str(suite), "--cache-dir", str(tmp_path / "cache")]
        done = subprocess.run(["ip", "netns", "exec", node.name, IPCNI, *words], env=node.env, capture_output=True, check=False)
        return Answer(done.returncode, done.stdout, done.stderr.decode())

    run("STATUS").ok()
    result = run("ADD").ok()
    assert [ip["address"] for ip in result["ips"]] == ["10.9.0.2/24"]
    assert {link["ifname"]: link["operstate"] for link in pod.ip("link")} == {"eth0": "UP", "lo": "UNKNOWN"}
    run("CHECK").ok()
    assert list(node.leases("net")) == ["10.9.0.2"]
    run("DEL").ok()
    assert node.leases("net") == {}
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert run("CHECK").status == 1
    run("DEL").ok()
