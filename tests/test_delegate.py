"""Finding another plugin and judging what became of it (protocol sheet 6), without running any."""

import contextlib
import json
import pathlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni.errors import CniError, Interrupted
from ipcni.model import Done
from ipcni.protocol import delegate, skel
from ipcni.protocol.quoting import quote
from ipcni.protocol.request import Request
from ipcni.protocol.result import IpConfig, Result
from tests.lab import BIN
from tests.nowhere import Nowhere

CONF = b'{"cniVersion":"1.1.0", "name":"n", "ipam":{"type":"stub"}}'
ONE = '{"ips":[{"address":"10.0.0.2/24"}]}'


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of plugins that holds `stub`."""
    (tmp_path / "stub").write_text("#!/bin/sh\n")
    return tmp_path


def request(path: object, verb: str = "ADD", conf: bytes = CONF) -> Request:
    env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_PATH": str(path), "FOREIGN": "x"}
    return skel.request("bridge", verb, env, conf)


def ended(status: int = 0, out: str = "", err: str = "") -> Done:
    return Done(status, out, err, 0)


@pytest.mark.parametrize(
    ("plugin", "path", "problem"),
    [
        ("", "", "no plugin name provided"),
        ("a/b", "", "invalid plugin name: a/b"),
        ("/stub", "{0}", "invalid plugin name: /stub"),
        ("stub", "", "no paths provided"),
        ("stub", ":", "no paths provided"),
        ("nosuch", "{0}:/nonexistent", 'failed to find plugin "nosuch" in path [{0} /nonexistent]'),
        ("..", "{0}", 'failed to find plugin ".." in path [{0}]'),
        ("a\0b", "{0}", 'failed to find plugin "a\0b" in path [{0}]'),
    ],
)
def test_not_found(folder: pathlib.Path, plugin: str, path: str, problem: str) -> None:
    with pytest.raises(CniError) as caught:
        delegate.find(plugin, path.format(folder))
    assert (caught.value.code, caught.value.msg) == (999, problem.format(folder))


def test_the_first_file_of_that_name_is_it(folder: pathlib.Path) -> None:
    """Folders, pipes and links that lead nowhere are passed over; links to files are not."""
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
    (folder / "a" / "stub").mkdir()
    (folder / "b" / "stub").symlink_to(folder / "none")
    (folder / "c" / "stub").symlink_to(folder / "stub")
    assert delegate.find("stub", f":{folder}/a:{folder}/b::{folder}/c:{folder}") == f"{folder}/c/stub"


def test_whose_it_is(folder: pathlib.Path) -> None:
    assert delegate.is_ours(str(BIN / "bridge"))
    assert not delegate.is_ours(str(folder / "stub"))
    assert not delegate.is_ours(str(folder / "none"))


@pytest.mark.parametrize(
    ("done", "code", "msg", "details"),
    [
        (ended(3, '{"code":50,"msg":"m","details":"d"}', "log"), 50, "m", "d"),
        (ended(3, ' {"CODE":50,"Msg":"m","x":1}\n'), 50, "m", ""),
        (ended(1, "{}"), 0, "", ""),
        (ended(3), 0, "netplugin failed with no error message: exit status 3", ""),
        (ended(-9), 0, "netplugin failed with no error message: signal: killed", ""),
        (ended(-15), 0, "netplugin failed with no error message: signal: terminated", ""),
        (ended(126, "", "/x: oops"), 0, 'netplugin failed: "/x: oops": exit status 126', ""),
        (ended(2, "", 'a\t"b"\\\x07é\n'), 0, 'netplugin failed: "a\\t\\"b\\"\\\\\\aé\\n": exit status 2', ""),
        (
            ended(126, "", "OSError: [Errno 8] Exec format error: b'{0}/stub'"),
            0,
            "netplugin failed with no error message: fork/exec {0}/stub: exec format error",
            "",
        ),
        (ended(126, "", "{0}/stub"), 0, "netplugin failed with no error message: fork/exec {0}/stub: permission denied", ""),
    ],
)
def test_failed(folder: pathlib.Path, done: Done, code: int, msg: str, details: str) -> None:
    host = Nowhere()
    host.outcomes = [Done(done.status, done.out, done.err.replace("{0}", str(folder)), 0)]
    with pytest.raises(CniError) as caught:
        delegate.call(request(folder, "STATUS"), host, "stub")
    assert (caught.value.code, caught.value.msg, caught.value.details) == (code, msg.replace("{0}", str(folder)), details)


@pytest.mark.parametrize(
    "out", ["junk\n", "\n", "[]", '"x"', '{"code":"x"}', '{"code":1.5}', '{"msg":5}', '{"code":true}', "{} {}"]
)
def test_failed_without_an_error_object(folder: pathlib.Path, out: str) -> None:
    host = Nowhere()
    host.outcomes = [ended(1, out)]
    with pytest.raises(CniError) as caught:
        delegate.call(request(folder, "DEL"), host, "stub")
    assert caught.value.code == 0
    assert caught.value.msg.startswith(f"netplugin failed but error parsing its diagnostic message {quote(out)}: ")


@pytest.mark.parametrize(
    ("out", "ips"),
    [
        (ONE, (IpConfig("10.0.0.2/24"),)),
        ("null", ()),
        (" {}\n", ()),
        ('{"code":50,"msg":"an error that is none"}', ()),
        ('{"cniVersion":"","ips":[{"address":"10.0.0.2/24"}]}', (IpConfig("10.0.0.2/24"),)),
        ('{"cniVersion":5,"ips":[{"address":"10.0.0.2/24"}]}', (IpConfig("10.0.0.2/24"),)),
        ('{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}', (IpConfig("10.0.0.2/24", version="4"),)),
        ('{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"}}', (IpConfig("10.0.0.2/24", version="4"),)),
    ],
)
def test_succeeded(folder: pathlib.Path, out: str, ips: tuple[IpConfig, ...]) -> None:
    host = Nowhere()
    host.outcomes = [ended(0, out, "log")]
    assert delegate.call(request(folder), host, "stub").ips == ips


@pytest.mark.parametrize(
    ("out", "msg"),
    [
        ("", "failed to unmarshal raw result: unexpected end of JSON input"),
        ("{", "failed to unmarshal raw result: "),
        ("[]", "failed to unmarshal raw result: "),
        ("{} {}", "failed to unmarshal raw result: "),
        ('{"cniVersion":"2.0.0"}', 'unsupported CNI result version "2.0.0"'),
    ],
)
def test_an_answer_that_is_none(folder: pathlib.Path, out: str, msg: str) -> None:
    """It is not known whether something was taken, so it is given back."""
    host = Nowhere()
    host.outcomes = [ended(0, out)]
    with pytest.raises(CniError) as caught:
        delegate.call(request(folder), host, "stub")
    assert caught.value.code == 999
    assert caught.value.msg.startswith(msg)
    assert len(host.undoing) == 1


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_what_other_verbs_print_is_ignored(folder: pathlib.Path, verb: str) -> None:
    host = Nowhere()
    host.outcomes = [ended(0, "junk")]
    assert delegate.call(request(folder, verb), host, "stub") == Result()
    assert host.undoing == []


@pytest.mark.parametrize(
    ("outcome", "released"),
    [
        (ended(0, ONE), True),
        (ended(1, '{"code":107,"msg":"boom"}'), False),
        (ended(126, "", "[Errno 8] Exec format error: b'x'"), False),
        (ended(-9), True),
        (ended(124, "", "killed after 60 s"), True),
        (Interrupted(), True),
    ],
)
def test_undo(folder: pathlib.Path, outcome: Done | BaseException, released: bool) -> None:
    """Who failed has tidied up; who succeeded, or had no chance to, is asked to DEL: as before, but for the verb."""
    host = Nowhere()
    host.outcomes = [outcome]
    with contextlib.suppress(CniError, Interrupted):
        delegate.call(request(folder), host, "stub")
    host.undo()
    calls = host.executed
    assert [env["CNI_COMMAND"] for _, env, _ in calls] == (["ADD", "DEL"] if released else ["ADD"])
    assert {path for path, _, _ in calls} == {f"{folder}/stub"}
    assert all(env == {**request(folder).env, "CNI_COMMAND": env["CNI_COMMAND"]} for _, env, _ in calls)
    assert {stdin for _, _, stdin in calls} == {CONF}


def test_another_stdin_and_another_verb(folder: pathlib.Path) -> None:
    host = Nowhere()
    delegate.call(request(folder), host, "stub", b"{}", "CHECK")
    assert [(env["CNI_COMMAND"], stdin) for _, env, stdin in host.executed] == [("CHECK", b"{}")]


def test_stderr_is_passed_on(folder: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    host = Nowhere()
    host.outcomes = [ended(0, "", "fine\n"), ended(1, "", "failed\n")]
    delegate.call(request(folder, "DEL"), host, "stub")
    with pytest.raises(CniError):
        delegate.call(request(folder, "DEL"), host, "stub")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "fine\nfailed\n")


BUSY = ended(126, "", "OSError: [Errno 26] Text file busy: b'/x/stub'")


@pytest.mark.parametrize(("busy", "tries"), [(0, 1), (5, 6)])
def test_busy(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, busy: int, tries: int) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    host = Nowhere()
    host.outcomes = [*[BUSY] * busy, ended(0, ONE)]
    assert delegate.call(request(folder), host, "stub").ips
    assert len(host.executed) == tries
    assert waits == [1] * busy


def test_busy_for_too_long(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    host = Nowhere()
    host.outcomes = [BUSY] * 7
    with pytest.raises(CniError) as caught:
        delegate.call(request(folder), host, "stub")
    assert caught.value.msg.endswith("/stub: text file busy")
    assert len(host.executed) == 6


def test_ours_runs_in_this_process() -> None:
    host = Nowhere()
    conf = json.dumps({"cniVersion": "1.1.0", "name": "n", "ipam": {"type": "static", "addresses": [{"address": "10.0.0.2/24"}]}})
    found = delegate.call(request(BIN, conf=conf.encode()), host, "static")
    assert found.ips == (IpConfig("10.0.0.2/24"),)
    assert host.executed == []


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\0\x1b\x7f", '"\\x00\\x1b\\x7f"'),
        ("é 😀'", '"é 😀\'"'),
        ("\u00a0\u2028\ufeff", '"\\u00a0\\u2028\\ufeff"'),
        ("\U000e0001", '"\\U000e0001"'),
        ("\udcff", '"\\xff"'),
    ],
)
def test_quote(text: str, quoted: str) -> None:
    assert quote(text) == quoted


@given(st.text())
def test_a_quoted_text_is_one_printable_line_and_loses_nothing(text: str) -> None:
    quoted = quote(text)
    assert quoted.isprintable()
    inner = quoted[1:-1].replace("\\\\", "\\x5c").replace('\\"', "\\x22")
    assert "".join(_unescaped(inner)) == text


def _unescaped(text: str) -> list[str]:
    parts = re.findall(r"\\x..|\\u.{4}|\\U.{8}|\\.|[^\\]", text, re.S)
    return [part if part[0] != "\\" else part.encode().decode("unicode_escape") for part in parts]
