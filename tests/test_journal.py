"""The journal: whole lines from many processes, bounded, and never in the way."""

import json
import multiprocessing
import pathlib
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from ipcni.errors import CniError
from ipcni.settings import Settings
from ipcni.shell import journal, remembered
from tests.lab import BIN, Node, run

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def record(**fields: Any) -> dict[str, Any]:
    return {
        "time": "2026-01-31T11:00:00.000Z",
        "verb": "ADD",
        "plugin": "bridge",
        "network": "n",
        "containerId": "abc",
        "ifname": "eth0",
        "netns": "/run/netns/p",
        "pod": "default/web-0",
        "ms": 12.0,
        "commands": [],
        **fields,
    }


def _write(folder: str, number: int) -> None:
    settings = Settings(log_dir=folder, log_size=20_000, log_files=1000)
    for i in range(100):
        journal.append(settings, {"who": number, "line": i, "padding": "x" * 200})


def test_processes_write_whole_lines_and_lose_none(tmp_path: pathlib.Path) -> None:
    """Eight writers, with rotations among them."""
    workers = [multiprocessing.Process(target=_write, args=(str(tmp_path), number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    settings = Settings(log_dir=str(tmp_path), log_files=1000)
    lines = list(remembered.lines(settings))
    assert len(remembered.files(settings)) > 3
    assert sorted((line["who"], line["line"]) for line in lines) == [(w, i) for w in range(8) for i in range(100)]


def test_the_size_is_bounded(tmp_path: pathlib.Path) -> None:
    settings = Settings(log_dir=str(tmp_path), log_size=2_000, log_files=3)
    for i in range(200):
        journal.append(settings, {"line": i, "padding": "x" * 100})
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["journal.jsonl", "journal.jsonl.1", "journal.jsonl.2"]
    assert all(file.stat().st_size <= 2_000 for file in files)
    assert [line["line"] for line in remembered.lines(settings)][-1] == 199


def test_a_torn_line_is_left_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"a": 1}\n{"b": \n[]\n')
    assert list(remembered.lines(Settings(log_dir=str(tmp_path)))) == [{"a": 1}]


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({}, True),
        ({"container_id": "ab"}, True),
        ({"container_id": "b"}, False),
        ({"pod": "web-0"}, True),
        ({"pod": "default/web-0"}, True),
        ({"pod": "other/web-0"}, False),
        ({"network": "n"}, True),
        ({"network": "m"}, False),
        ({"failed": True}, False),
        ({"slow": 0.012}, True),
        ({"slow": 0.013}, False),
        ({"since": remembered.moment("2h", NOW)}, True),
        ({"since": remembered.moment("59m", NOW)}, False),
        ({"since": remembered.moment("2026-01-31T11:00", NOW)}, True),
    ],
)
def test_records_are_chosen(wanted: dict[str, Any], there: bool) -> None:
    assert remembered.matches(record(), **wanted) is there


@pytest.mark.parametrize("text", ["yesterday", "5", "5 m", "-1h"])
def test_a_wrong_time_is_named(text: str) -> None:
    with pytest.raises(CniError, match="no point in time"):
        remembered.moment(text, NOW)


def test_the_script_is_what_ran(node: Node, tmp_path: pathlib.Path) -> None:
    """Replayed on another node, it makes the same links."""
    pod = node.pod()
    conf = {
        "cniVersion": "1.1.0",
        "name": "n",
        "type": "bridge",
        "isGateway": True,
        "ipam": {"type": "host-local", "dataDir": node.data_dir, "subnet": "10.7.0.0/24"},
    }
    node.call("ADD", conf, pod).ok()
    script = run(str(BIN / "ipcni"), "journal", "--format", "sh", env=node.env).stdout
    before = (node.links(), pod.ip("addr", "show", "dev", "eth0")[0]["addr_info"][0]["local"])
    node.run("ip", "link", "del", "cni0")
    pod.run("ip", "link", "del", "eth0")
    run("rm", "-r", node.data_dir)
    run("mkdir", "-p", f"{node.data_dir}/n")
    node.run("sh", "-e", "-c", script)
    assert (node.links(), pod.ip("addr", "show", "dev", "eth0")[0]["addr_info"][0]["local"]) == before
    assert node.leases("n") == {"10.7.0.2": "cid1\r\neth0"}


def test_an_operation_is_told(node: Node) -> None:
    pod = node.pod()
    node.call(
        "ADD", {"cniVersion": "1.0.0", "name": "n", "type": "loopback"}, pod, args="K8S_POD_NAMESPACE=a;K8S_POD_NAME=b"
    ).ok()
    (line,) = node.journal()
    assert {key: line[key] for key in ("schema", "verb", "plugin", "network", "containerId", "ifname", "netns", "pod")} == {
        "schema": 1,
        "verb": "ADD",
        "plugin": "loopback",
        "network": "n",
        "containerId": "cid1",
        "ifname": "eth0",
        "netns": pod.path,
        "pod": "a/b",
    }
    changes = [command for command in line["commands"] if not command.get("look")]
    assert [(command["plugin"], command["argv"], command["status"]) for command in changes] == [
        ("loopback", ["ip", "-n", pod.name, "link", "set", "dev", "lo", "up"], 0)
    ]
    assert line["result"]["ips"][0]["address"] == "127.0.0.1/8"
    text = run(str(BIN / "ipcni"), "journal", "--pod", "b", env=node.env).stdout
    assert f"+ ip -n {pod.name} link set dev lo up" in text
    assert " ok (loopback)" in text
    shown = run(str(BIN / "ipcni"), "journal", "--format", "json", env=node.env).stdout
    assert json.loads(shown) == line


def test_a_failure_is_told(node: Node) -> None:
    node.call("ADD", {"cniVersion": "1.0.0", "name": "n", "type": "loopback"}, "/run/netns/nowhere").error()
    assert "error" in node.journal()[0]
    text = run(str(BIN / "ipcni"), "journal", "--failed", env=node.env).stdout
    assert "failed (loopback)" in text
    assert "no such file or directory (999)" in text


def test_a_journal_that_cannot_be_written_fails_nothing(node: Node, tmp_path: pathlib.Path) -> None:
    """The log folder is a file, or on a full disk: the pod gets its network all the same."""
    conf = {"cniVersion": "1.0.0", "name": "n", "type": "loopback"}
    (tmp_path / "file").write_text("")
    node.call("ADD", conf, node.pod(), env={"IPCNI_LOG_DIR": str(tmp_path / "file")}).ok()
    full = tmp_path / "full"
    full.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(full))
    try:
        (full / "filler").write_bytes(b"x" * 4096)
        node.call("ADD", conf, node.pod(), env={"IPCNI_LOG_DIR": str(full)}).ok()
        run("mount", "-o", "remount,ro", str(full))
        node.call("ADD", conf, node.pod(), env={"IPCNI_LOG_DIR": str(full)}).ok()
    finally:
        run("umount", str(full))


def test_following_shows_what_comes(node: Node) -> None:
    """Also behind a rotation."""
    settings = Settings(log_dir=node.env["IPCNI_LOG_DIR"])
    journal.append(settings, record(containerId="old"))
    watcher = subprocess.Popen(
        [str(BIN / "ipcni"), "journal", "-f", "--format", "json", "--network", "n"],
        env=node.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    try:
        assert json.loads(watcher.stdout.readline())["containerId"] == "old"
        for name in ("new", "newer"):
            journal.append(settings, record(containerId=name))
            journal.append(settings, record(network="another"))
            assert json.loads(watcher.stdout.readline())["containerId"] == name
            path = node.folder / "log" / "journal.jsonl"
            path.rename(f"{path}.1")
    finally:
        watcher.kill()
        watcher.wait()
