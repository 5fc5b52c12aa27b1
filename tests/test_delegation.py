"""The protocol sheet's delegation cases (10.7), with `bridge` as the caller and a recording stub as its IPAM plugin.

The sheet's caller for ADD, DEL and GC is ptp, which asks IPAM before it looks at the namespace; bridge looks first.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.lab import BIN, Answer, Node

CONF = '{"cniVersion":"1.1.0",  "name":"n","type":"bridge", "bridge":"br0", "ipam":{"type":"stub"}, "x":[1.0,"\\u00e9"]}'
ONE = '{"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"}]}'
VALID = "cni.dev/valid-attachments"


class Stub:
    """An executable that writes down how it is called, then does what `behaviour` (shell) says."""

    def __init__(self, folder: pathlib.Path, node: Node) -> None:
        self.folder = folder
        self.node = node
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.behaves("")

    def behaves(self, behaviour: str) -> None:
        path = self.bin / "stub"
        path.write_text(
            f"#!/bin/sh\ncd {self.folder}\ncat /proc/$$/environ > $CNI_COMMAND.env\ncat > $CNI_COMMAND.stdin\n"
            f"echo $CNI_COMMAND >> calls\n{behaviour}\n"
        )
        path.chmod(0o755)

    def answers(self, out: str = "", *, exit_status: int = 0, err: str = "") -> None:
        """From now on it prints this and exits so, for ADD; whatever else it is asked succeeds quietly."""
        (self.folder / "out").write_text(out)
        (self.folder / "err").write_text(err)
        self.behaves(f'[ "$CNI_COMMAND" = "${{ONLY-$CNI_COMMAND}}" ] || exit 0\ncat out; cat err >&2; exit {exit_status}')

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    def stdin(self, verb: str) -> bytes:
        return (self.folder / f"{verb}.stdin").read_bytes()

    def environ(self, verb: str) -> dict[str, str]:
        text = os.fsdecode((self.folder / f"{verb}.env").read_bytes())
        found = dict(pair.split("=", 1) for pair in text.split("\0") if pair)
        found.pop("IPCNI_SOCKET", None)  # how a test says where the server is
        return found

    def call(self, verb: str, conf: str = CONF, **options: Any) -> Answer:
        return self.node.call(verb, conf, bin_dir=BIN, path=str(self.bin), **options)


@pytest.fixture
def stub(tmp_path: pathlib.Path, node: Node) -> Stub:
    folder = tmp_path / "stub"
    folder.mkdir()
    return Stub(folder, node)


@pytest.mark.parametrize(
    ("out", "status", "err", "expected"),
    [
        pytest.param(
            '{"code":50,"msg":"pool empty","details":"10.0.0.0/24"}',
            3,
            "text",
            {"code": 50, "msg": "pool empty", "details": "10.0.0.0/24"},
            id="G1",
        ),
        pytest.param("", 3, "", {"code": 0, "msg": "netplugin failed with no error message: exit status 3"}, id="G2"),
        pytest.param("", 3, "oops\n", {"code": 0, "msg": 'netplugin failed: "oops\\n": exit status 3'}, id="G3"),
    ],
)
def test_status_fails(stub: Stub, out: str, status: int, err: str, expected: dict[str, object]) -> None:
    stub.answers(out, exit_status=status, err=err)
    answer = stub.call("STATUS")
    assert answer.error() == expected
    assert answer.stderr == err  # the reference drops it here, the specification doesn't (sheet 11, row 9)


def test_g4_diagnostic_that_is_none(stub: Stub) -> None:
    stub.answers("junk", exit_status=1)
    error = stub.call("STATUS").error()
    assert error["code"] == 0
    assert error["msg"].startswith('netplugin failed but error parsing its diagnostic message "junk": ')


def test_g5_stderr_is_passed_on(stub: Stub) -> None:
    stub.answers(err="oops")
    answer = stub.call("STATUS")
    assert (answer.status, answer.stdout, answer.stderr) == (0, b"", "oops")


def test_g6_the_exit_status_decides(stub: Stub) -> None:
    stub.answers('{"code":50,"msg":"x"}')
    answer = stub.call("STATUS")
    assert (answer.status, answer.stdout) == (0, b"")


def test_g7_a_later_failure_gives_the_address_back(stub: Stub) -> None:
    """Here: the bridge has another address already."""
    stub.answers(ONE)
    stub.node.run("ip", "link", "add", "br0", "type", "bridge")
    stub.node.run("ip", "addr", "add", "10.0.0.9/24", "dev", "br0")
    pod = stub.node.pod()
    error = stub.call("ADD", CONF.replace('"ipam"', '"isGateway": true, "ipam"'), pod=pod).error()
    assert error["code"] == 999
    assert error["msg"].startswith('failed to set bridge addr: "br0" already has an IP address different from 10.0.0.1/24')
    assert stub.calls == ["ADD", "DEL"]
    assert stub.node.links() == ["br0", "lo"]


def test_g7_no_namespace_no_address(stub: Stub) -> None:
    stub.answers(ONE)
    error = stub.call("ADD", pod="/nonexistent/ns").error()
    assert error["code"] == 999
    assert error["msg"].startswith('failed to open netns "')
    assert stub.calls == []


def test_g8_a_result_in_an_older_layout_is_converted(stub: Stub) -> None:
    stub.answers('{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24","gateway":"10.0.0.1"}]}')
    result = stub.call("ADD", pod=stub.node.pod()).ok()
    assert result["cniVersion"] == "1.1.0"
    assert result["ips"] == [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 2}]
    assert stub.calls == ["ADD"]


@pytest.mark.parametrize(
    ("out", "status", "expected", "calls"),
    [
        pytest.param("{}", 0, {"code": 999, "msg": "IPAM plugin returned missing IP config"}, ["ADD", "DEL"], id="G9"),
        pytest.param(
            '{"code":107,"msg":"boom","details":"dd"}',
            1,
            {"code": 107, "msg": "boom", "details": "dd"},
            ["ADD"],
            id="G10",
        ),
        # The reference does not call DEL here; that the delegate took nothing is only a guess, though.
        pytest.param(
            "", 0, {"code": 999, "msg": "failed to unmarshal raw result: unexpected end of JSON input"}, ["ADD", "DEL"], id="G11"
        ),
    ],
)
def test_add_fails(stub: Stub, out: str, status: int, expected: dict[str, object], calls: list[str]) -> None:
    stub.answers(out, exit_status=status)
    pod = stub.node.pod()
    error = stub.call("ADD", pod=pod).error()
    assert {key: error.get(key) for key in expected} == expected
    assert stub.calls == calls
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
def test_g12_the_delegate_is_called_like_its_caller(stub: Stub, verb: str) -> None:
    """Same bytes on stdin, same environment but for CNI_COMMAND, be it ours, foreign or no text at all."""
    pod = stub.node.pod()
    stub.answers(ONE)
    # PWD is set because the shell at the head of bin/cni sets it where a runtime doesn't.
    foreign = {"FOREIGN": "a=b;c\nd", "BYTES": "\udcff\udcfe", "CNI_OTHER": "1", "EMPTY": "", "PWD": os.getcwd(), "ONLY": "ADD"}
    conf = CONF if verb in ("ADD", "STATUS", "DEL") else CONF.replace('"x"', f'"prevResult":{{}},"{VALID}":[],"x"')
    stub.call(verb, conf, pod=pod, args="IgnoreUnknown=1;K8S_POD_NAME=p", env=foreign)
    assert stub.calls[0] == verb
    assert stub.stdin(verb) == conf.encode()
    assert stub.environ(verb) == {
        **stub.node.env,
        **foreign,
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "cid1",
        "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p",
        "CNI_PATH": str(stub.bin),
    }


def test_g12_the_releasing_call_too(stub: Stub) -> None:
    """The DEL that takes back an ADD differs from it in CNI_COMMAND only."""
    stub.answers("{}")
    stub.call("ADD", pod=stub.node.pod()).error()
    assert stub.stdin("DEL") == stub.stdin("ADD") == CONF.encode()
    assert stub.environ("DEL") == {**stub.environ("ADD"), "CNI_COMMAND": "DEL"}


def test_g13_del_is_forwarded(stub: Stub) -> None:
    answer = stub.call("DEL")
    assert (answer.status, answer.stdout) == (0, b"")
    assert stub.calls == ["DEL"]


def test_g14_a_failed_del_is_passed_on(stub: Stub) -> None:
    stub.answers('{"code":107,"msg":"boom"}', exit_status=1)
    assert stub.call("DEL").error() == {"code": 107, "msg": "boom"}


@pytest.mark.parametrize("attachments", ["", f'"{VALID}":[{{"containerID":"a","ifname":"b"}}],', f'"{VALID}":null,'])
def test_g15_gc_is_forwarded(stub: Stub, attachments: str) -> None:
    """Also without a list: what that means is for the delegate to judge."""
    conf = CONF.replace('"x"', f'{attachments}"x"')
    answer = stub.call("GC", conf)
    assert (answer.status, answer.stdout) == (0, b""), answer
    assert stub.calls == ["GC"]
    assert stub.stdin("GC") == conf.encode()


def test_not_executable(stub: Stub) -> None:
    (stub.bin / "stub").chmod(0o644)
    path = stub.bin / "stub"
    assert stub.call("STATUS").error() == {
        "code": 0,
        "msg": f"netplugin failed with no error message: fork/exec {path}: permission denied",
    }


def test_no_program(stub: Stub) -> None:
    (stub.bin / "stub").write_text("no program")
    path = stub.bin / "stub"
    assert stub.call("STATUS").error() == {
        "code": 0,
        "msg": f"netplugin failed with no error message: fork/exec {path}: exec format error",
    }


def test_killed(stub: Stub) -> None:
    """Who is killed cannot tidy up, so it is told to."""
    stub.behaves("[ $CNI_COMMAND = DEL ] || kill -9 $$")
    error = stub.call("ADD", pod=stub.node.pod()).error()
    assert error == {"code": 0, "msg": "netplugin failed with no error message: signal: killed"}
    assert stub.calls == ["ADD", "DEL"]


def test_replaced_meanwhile(stub: Stub) -> None:
    """A delegate that is being written is waited for."""
    with open(stub.bin / "stub", "ab"):
        process = stub.node.start("STATUS", CONF, path=str(stub.bin))
        time.sleep(0.6)
        assert process.poll() is None
    assert stub.node.wait(process).ok() is None
    assert stub.calls == ["STATUS"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_undoes(stub: Stub, number: int) -> None:
    """One error object, nothing else on stdout, and nothing left of the attachment or its address."""
    stub.behaves("[ $CNI_COMMAND = ADD ] && exec sleep 60")
    pod = stub.node.pod()
    process = stub.node.start("ADD", CONF, pod, path=str(stub.bin))
    _until_called(stub, process)
    assert any(link.startswith("veth") for link in stub.node.links())
    process.send_signal(number)
    error = stub.node.wait(process, 10).error()
    assert error["code"] == 11
    assert error["msg"] == "ADD was interrupted by a signal"
    assert stub.calls == ["ADD", "DEL"]
    assert stub.node.links() == ["br0", "lo"]
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert not re.search(rf"^{stub.bin}", subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout, re.M)


def test_a_signal_during_a_removal(stub: Stub) -> None:
    """There is nothing to undo; the runtime is told to come again."""
    stub.behaves("exec sleep 60")
    process = stub.node.start("DEL", CONF, path=str(stub.bin))
    _until_called(stub, process)
    process.send_signal(signal.SIGTERM)
    error = stub.node.wait(process, 10).error()
    assert (error["code"], error["msg"]) == (11, "DEL was interrupted by a signal")
    assert stub.calls == ["DEL"]


def _until_called(stub: Stub, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10
    while not stub.calls:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ours_is_composed(stub: Stub) -> None:
    """A delegate that is ipcni itself runs in the caller's process, and undoes with it."""
    conf = json.loads(CONF) | {
        "ipam": {"type": "host-local", "subnet": "10.0.0.0/24", "dataDir": stub.node.data_dir},
        "isGateway": True,
    }
    stub.node.run("ip", "link", "add", "br0", "type", "bridge")
    stub.node.run("ip", "addr", "add", "10.0.0.9/24", "dev", "br0")
    error = stub.node.call("ADD", conf, stub.node.pod()).error()
    assert error["msg"].startswith("failed to set bridge addr")
    assert stub.node.leases("n") == {}
    argvs = [command["argv"] for record in stub.node.journal() for command in record["commands"]]
    assert argvs
    assert not any("host-local" in argv[0] for argv in argvs)


def test_a_poor_environment_will_do(node: Node) -> None:
    """Runtimes hand over a PATH without the sbin folders; ip and sysctl are found all the same, and so are their effects."""
    ipam = {"type": "host-local", "subnet": "10.0.0.0/24", "dataDir": node.data_dir}
    conf = {"cniVersion": "1.1.0", "name": "n", "type": "bridge", "bridge": "br0", "isGateway": True, "ipam": ipam}
    pod = node.pod()
    result = node.call("ADD", conf, pod, env={"PATH": "/usr/bin"}).ok()
    assert [ip["address"] for ip in result["ips"]] == ["10.0.0.2/24"]
    assert [link["ifname"] for link in pod.ip("link")] == ["lo", "eth0"]
    assert node.call("DEL", conf, pod, env={"PATH": "/usr/bin"}).ok() is None
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert node.leases("n") == {}
