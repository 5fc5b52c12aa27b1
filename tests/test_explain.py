"""explain from the command line: without root, in all forms, and changing nothing."""

import json
import pathlib
import subprocess
from typing import Any

import pytest

from tests.lab import BIN, GO, Node, run

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
PORTS = '{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'


@pytest.fixture
def conflist(node: Node) -> pathlib.Path:
    """bridge and portmap; readable by everybody."""
    path = node.folder / "10-net.conflist"
    plugins = [
        {
            "type": "bridge",
            "bridge": "expl0",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "dataDir": node.data_dir, "subnet": "10.7.0.0/24"},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": plugins}))
    for folder in (path, *path.parents):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    return path


def explain(node: Node, *argv: str, before: tuple[str, ...] = (), stdin: str = "") -> subprocess.CompletedProcess[str]:
    return node.run(*before, str(BIN / "ipcni"), "explain", *argv, check=False, env=node.env, input=stdin)


def lines(text: str) -> list[str]:
    """The commands of a script."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_it_needs_no_root_and_says_what_it_could_not_see(node: Node, conflist: pathlib.Path) -> None:
    done = explain(node, str(conflist), "--netns", "blue", before=NOBODY)
    assert done.returncode == 0, done.stderr
    assert "ip -n blue link set dev eth0 up" in lines(done.stdout)
    assert "# could not look: iptables -t nat -S: " in done.stdout
    assert list(node.folder.iterdir()) == [conflist], "no lease, no lock, no journal"


def test_every_command_has_a_plugin_and_a_reason(node: Node, conflist: pathlib.Path) -> None:
    done = explain(node, str(conflist), "--capability-args", PORTS, "--format", "json")
    told = json.loads(done.stdout)
    assert told["schema"] == 1
    assert next(block["plugin"] for block in told["blocks"] if block["steps"]) == "host-local"
    assert {block["plugin"] for block in told["blocks"]} == {"host-local", "bridge", "portmap"}
    steps = [step for block in told["blocks"] for step in block["steps"] if "template" in step]
    assert all(step["why"] for step in steps)
    assert any(step["command"].endswith("> " + f"{node.data_dir}/net/10.7.0.2)") for step in steps)
    assert told["result"]["ips"][0]["address"] == "10.7.0.2/24"
    assert (told["error"], told["verb"]) == (None, "ADD")


def test_the_plugins_are_named_before_their_blocks(node: Node, conflist: pathlib.Path) -> None:
    text = explain(node, str(conflist), "--capability-args", PORTS).stdout
    titles = [line for line in text.splitlines() if line.startswith("# ----")]
    assert titles == ["# ---- host-local, called by bridge", "# ---- bridge", "# ---- portmap", "# ---- the answer"]
    assert explain(node, str(conflist), "--capability-args", PORTS).stdout == text, "explaining twice says the same"


def test_undo_is_told_on_demand(node: Node, conflist: pathlib.Path) -> None:
    assert "undo:" not in explain(node, str(conflist)).stdout
    text = explain(node, str(conflist), "--undo").stdout
    assert f"#   undo: rm -f {node.data_dir}/net/10.7.0.2" in text
    assert "#   undo: ip link del dev veth" in text


def test_as_run_joins_what_is_run_as_one(node: Node, conflist: pathlib.Path) -> None:
    text = explain(node, str(conflist), "--netns", "blue", "--as-run").stdout
    assert "ip -n blue -batch - <<'EOF'\naddr add 10.7.0.2/24 brd + dev eth0\nlink set dev eth0 up\nEOF\n" in text
    assert "iptables-restore --noflush -w 10 <<'EOF'\n*nat\n" in text


def test_markdown_reads_as_a_page(node: Node, conflist: pathlib.Path) -> None:
    text = explain(node, str(conflist), "--format", "markdown").stdout
    assert text.startswith("# ADD for network net")
    assert "\n## host-local (called by bridge)\n" in text
    assert text.count("```sh\n") == text.count("\n```\n") > 3


def test_what_a_runtime_writes_on_stdin(node: Node, conflist: pathlib.Path) -> None:
    conf: dict[str, Any] = json.loads(conflist.read_text())
    plugin = {**conf["plugins"][0], "name": "net", "cniVersion": "1.0.0"}
    done = explain(node, "-", "--netns", "blue", stdin=json.dumps(plugin))
    assert "ip -n blue link set dev eth0 up" in lines(done.stdout)
    assert "# ADD for the configuration on stdin" in done.stdout


def test_a_folder_as_a_kubelet_picks_from_it(node: Node, conflist: pathlib.Path) -> None:
    (conflist.parent / "00-broken.conflist").write_text("{")
    (conflist.parent / "20-later.conf").write_text('{"cniVersion": "1.0.0", "name": "later", "type": "loopback"}')
    assert "# ADD for network net" in explain(node, "--conf-dir", str(conflist.parent)).stdout
    (conflist.parent / "00-broken.conflist").unlink()
    assert "# ADD for network later" in explain(node, "later", "--conf-dir", str(conflist.parent)).stdout
    done = explain(node, "--conf-dir", "/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ipcni: no net configurations found in /nowhere; ")


def test_del_and_check_of_a_pod_that_is_there(node: Node, conflist: pathlib.Path) -> None:
    pod = node.pod()
    given = [str(conflist), "--netns", pod.name, "--cni-path", str(BIN), "--cache-dir", str(node.folder / "cache")]
    node.run(str(BIN / "ipcni"), "run", "ADD", *given, env=node.env)
    text = explain(node, "CHECK", *given).stdout
    assert f"ip -n {pod.name} -j -d addr show dev eth0" in lines(text)
    pod.run("ip", "link", "set", "dev", "eth0", "address", "02:00:00:00:00:01")
    done = explain(node, "CHECK", *given)
    assert (done.returncode, done.stderr.startswith("ipcni: Interface eth0 Mac ")) == (1, True)
    text = explain(node, "del", *given).stdout
    (link,) = (link for link in node.links() if link.startswith("veth"))
    assert lines(text)[:2] == ["set -eu", f"ip link del dev {link} || true"]
    assert f"rm -f {node.data_dir}/net/10.7.0.2" in lines(text)
    assert "iptables -w 10 -t nat -D POSTROUTING -s 10.7.0.2/32" in text
    assert list(node.leases("net")) == ["10.7.0.2"]


def test_a_plugin_of_another_suite_is_shown_as_its_call(node: Node, conflist: pathlib.Path) -> None:
    done = explain(node, str(conflist), "--cni-path", str(GO))
    assert done.returncode == 1
    assert "| CNI_ARGS='' CNI_COMMAND=ADD CNI_CONTAINERID=" in done.stdout
    assert done.stderr.startswith(f"ipcni: what follows depends on the answer of {GO}/bridge; ")


def test_a_failure_ends_the_script_where_it_would(node: Node, conflist: pathlib.Path) -> None:
    node.run("ip", "link", "add", "expl0", "type", "bridge")
    node.run("ip", "link", "set", "expl0", "up")
    node.run("ip", "addr", "add", "10.99.0.1/16", "dev", "expl0")
    done = explain(node, str(conflist))
    assert done.returncode == 1
    assert "already has an IP address different from 10.7.0.1/24; it has 10.99.0.1/16" in done.stderr
    assert "ip link add name veth" not in done.stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["ADD", "a", "b"], "too much: b"),
        (["--form", "sh"], "No such option '--form'. Did you mean '--format'? (see ipcni explain --help)"),
        (["x", "--format", "pdf"], "'pdf' is not one of 'sh', 'markdown', 'json'"),
        (["/nowhere.conflist"], "/nowhere.conflist"),
        (["x", "--capability-args", "["], "--capability-args is no JSON"),
        (["x", "--capability-args", "[]"], "--capability-args must be a JSON object"),
        (["x", "--args", "K"], 'invalid CNI_ARGS pair "K"'),
    ],
)
def test_wrong_usage_is_one_line(node: Node, argv: list[str], said: str) -> None:
    done = explain(node, *argv)
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_that_there_is_nothing_to_do_is_said(node: Node, conflist: pathlib.Path) -> None:
    text = explain(node, "DEL", str(conflist), "--netns", "blue", "--container-id", "nobody").stdout
    assert lines(text) == ["set -eu"]
    assert text.endswith("# Nothing to run: nothing of this attachment is here.\n")


def test_broken_json_is_found_by_line_and_column(node: Node, conflist: pathlib.Path) -> None:
    conflist.write_text('{"cniVersion": "1.0.0",\n "name": net}')
    done = explain(node, str(conflist))
    assert done.stderr == f"ipcni: error parsing configuration list: Expecting value; in {conflist}:2:10\n"


def test_help_has_an_example() -> None:
    for name in ("explain", "journal", "run", "install", "uninstall"):
        text = run(str(BIN / "ipcni"), name, "--help").stdout
        assert f"ipcni {name} " in text.partition("Example")[2], name


def test_gc_on_stdin_has_its_own_list(node: Node) -> None:
    done = explain(node, "GC", "-", "--valid", "a/eth0", stdin="{}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("ipcni: --valid is of no use with -")
