"""The dhcp daemon's pure parts: gob, options, command line, what a lease comes to (IPAM sheet 4)."""

import contextlib
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni.dhcp import client, command, conf, gob, lease, rpc
from ipcni.dhcp.client import Options
from ipcni.dhcp.command import UsageError
from ipcni.dhcp.gob import BYTES, INT, STRING, UINT, Decoder, Encoder, GobError, Slice, Struct
from ipcni.dhcp.lease import Lease, Terms
from ipcni.errors import CniError
from ipcni.protocol import result as results
from ipcni.protocol.result import Dns, IpConfig, Result, Route

STDIN = b'{"cniVersion":"1.0.0","name":"mynet","ipam":{"type":"dhcp"}}'
# A Release, byte by byte as Go writes it.
REQUEST = bytes.fromhex(
    "2e7f030101075265717565737401ff80000102010d536572766963654d6574686f64010c0001035365710106000000"
    "11ff80010c444843502e52656c6561736500"
    "6cff8103010107436d644172677301ff82000107010b436f6e7461696e65724944010c0001054e65746e73010c00010649664e616d65010c000104"
    "41726773010c00010450617468010c00010d4e65746e734f76657272696465010c000109537464696e44617461010a000000"
    "6bff82010463696431010e2f72756e2f6e65746e732f706f64010465746830020c2f6f70742f636e692f62696e023c7b22636e6956657273696f6e22"
    "3a22312e302e30222c226e616d65223a226d796e6574222c226970616d223a7b2274797065223a2264686370227d7d00"
)
ANSWER = bytes.fromhex(
    "397f03010108526573706f6e736501ff80000103010d536572766963654d6574686f64010c00010353657101060001054572726f72010c000000"
    "11ff80010c444843502e52656c65617365000aff81030102ff82000000" + "03ff8200"
)
ARGS = rpc.Args("cid1", "/run/netns/pod", "eth0", "", "/opt/cni/bin", STDIN)


def test_a_request_is_go_s_byte_by_byte_and_so_is_the_answer_read(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    heard: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def daemon() -> None:
        connection, _ = listener.accept()
        with connection:
            while not b"".join(heard).endswith(b"\n\n"):
                heard.append(connection.recv(100))
            connection.sendall(b"HTTP/1.0 200 Connected to Go RPC\n\n")
            heard.clear()
            while len(b"".join(heard)) < len(REQUEST):
                heard.append(connection.recv(1000))
            connection.sendall(ANSWER)

    thread = threading.Thread(target=daemon)
    thread.start()
    assert rpc.call(path, "Release", ARGS) == Result()
    thread.join()
    listener.close()
    assert b"".join(heard) == REQUEST


def test_an_answer_is_go_s_byte_by_byte() -> None:
    ours, theirs = socket.socketpair()
    told: list[Any] = []

    def perform(method: str, args: rpc.Args) -> None:
        told.append((method, args))

    thread = threading.Thread(target=rpc.serve, args=(ours, perform))
    thread.start()
    theirs.sendall(b"CONNECT /_goRPC_ HTTP/1.0\n\n" + REQUEST)
    expected = b"HTTP/1.0 200 Connected to Go RPC\n\n" + ANSWER
    heard = b""
    while len(heard) < len(expected):
        heard += theirs.recv(1000)
    theirs.close()
    thread.join()
    ours.close()
    assert heard == expected
    assert told == [("DHCP.Release", ARGS)]


def test_a_lease_as_go_writes_it() -> None:
    """The value of the sheet's Allocate, and types with what ours leaves out."""
    kind = Struct(
        "Result",
        (
            ("CNIVersion", STRING),
            ("Interfaces", Slice(Struct("Interface", (("Name", STRING),)))),
            ("IPs", Slice(rpc._IP)),
            ("Routes", Slice(rpc._ROUTE)),
            ("DNS", Struct("DNS", (("Nameservers", Slice(STRING)), ("Domain", STRING)))),
        ),
    )
    value = {
        "IPs": [{"Address": {"IP": bytes((192, 168, 1, 5)), "Mask": b"\xff\xff\xff\0"}, "Gateway": bytes((192, 168, 1, 1))}],
        "Routes": [{"Dst": {"IP": bytes(4), "Mask": bytes(4)}, "GW": bytes((192, 168, 1, 1)), "Priority": 50}],
        "DNS": {},
    }
    data = Encoder().message(kind, value)
    assert data.endswith(
        bytes.fromhex(
            "03010201 04c0a80105 0104ffffff00 00 0104c0a80101 00 01 0101 0104 00000000 0104 00000000 00 0104c0a80101 0364 00 01 00 00"
        )
    )
    assert rpc._decoded(decoded(data)[0]) == Result(
        ips=(IpConfig(address="192.168.1.5/24", gateway="192.168.1.1"),),
        routes=(Route(dst="0.0.0.0/0", gw="192.168.1.1", priority=50),),
        dns=Dns(),
    )


def decoded(data: bytes) -> list[dict[str, Any]]:
    """The values of a stream."""
    read, found = Decoder(), []
    while data:
        more = gob.length(data[0])
        size = int.from_bytes(data[1 : 1 + more], "big") if more else data[0]
        message, data = data[1 + more : 1 + more + size], data[1 + more + size :]
        if (value := read.value(message)) is not None:
            found.append(value)
    return found


KIND = Struct("All", (("N", INT), ("U", UINT), ("T", STRING), ("B", BYTES), ("L", Slice(Struct("One", (("N", INT),))))))


@given(
    st.fixed_dictionaries(
        {
            "N": st.integers(-(1 << 63), (1 << 63) - 1),
            "U": st.integers(0, (1 << 64) - 1),
            "T": st.text(),
            "B": st.binary(),
            "L": st.lists(st.integers(1, 9).map(lambda n: {"N": n})),
        }
    )
)
def test_there_and_back(value: dict[str, Any]) -> None:
    """Zero values are not there."""
    assert decoded(Encoder().message(KIND, value)) == [{key: item for key, item in value.items() if item}]


@given(st.binary(max_size=60))
def test_no_bytes_are_worse_than_no_gob(data: bytes) -> None:
    read = Decoder()
    for message in (data, REQUEST[1:47], data):
        with contextlib.suppress(GobError):
            read.value(message)


# -- options


def ipam(**keys: Any) -> conf.Ipam:
    import msgspec

    return msgspec.convert(keys, conf.Ipam)


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        ([], (3, 1)),
        ([{"option": "15"}], (15, 3, 1)),
        ([{"option": "15"}, {"option": "1"}, {"option": "15"}], (15, 1, 3)),
        ([{"option": "121", "skipDefault": True}], (121,)),
        ([{"option": "121"}, {"skipDefault": True}], (121,)),
        ([{"skipDefault": True}], (1, 3, 15, 6)),
    ],
)
def test_what_is_asked_for(request_: list[dict[str, Any]], asked: tuple[int, ...]) -> None:
    assert conf.asked(ipam(request=request_)) == asked


def test_what_is_sent() -> None:
    provide = [{"option": "host-name", "value": "a", "fromArg": "POD"}, {"option": "77", "fromArg": "NO"}, {"option": "60"}]
    assert conf.sent(ipam(provide=provide), "x;POD=b=c;POD=d=e", "cid1/mynet/eth0") == {
        61: "00636964312f6d796e65742f65746830",
        12: b"d=e".hex(),
    }
    assert len(conf.sent(ipam(), "", conf.key("n" * 300, "c", "eth0"))[61]) == 2 * 255


@pytest.mark.parametrize(("text", "number"), [("host-name", 12), ("12", 12), ("255", 255), ("0" * 5000 + "12", 12)])
def test_options_by_name_and_number(text: str, number: int) -> None:
    assert conf.option(text) == number


@pytest.mark.parametrize(
    "text", ["doNotparseMe", "", "-1", "256", "1 ", "99999999999999999999999999", "0" * 20 + "999", "9" * 5000]
)
def test_no_options(text: str) -> None:
    with pytest.raises(CniError, match=f'^Can not parse option "{text}": Can not parse option: strconv.ParseUint: parsing '):
        conf.option(text)


# -- the command line


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        ((), "timeout", 10.0),
        (("-timeout", "1m2s"), "timeout", 62.0),
        (("--timeout=1.5s",), "timeout", 1.5),
        (("-resendmax", "250ms"), "resendmax", 0.25),
        (("-resendtimeout", "0"), "resendtimeout", 0.0),
        (("-broadcast",), "broadcast", True),
        (("-broadcast=false",), "broadcast", False),
        (("-broadcast", "-pidfile", "/x"), "pidfile", "/x"),
        (("stop", "-nosuch"), "broadcast", False),
        (("--", "-nosuch"), "broadcast", False),
    ],
)
def test_flags(argv: tuple[str, ...], key: str, value: object) -> None:
    assert getattr(command.parse(argv), key) == value


@pytest.mark.parametrize("argv", [("-timeout", "10"), ("-timeout", ""), ("-timeout", "10s1"), ("-hostprefix",), ("-t",)])
def test_no_flags(argv: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        command.parse(argv)


# -- leases


def said(**values: str) -> lease.Report:
    words = dict.fromkeys(lease.Report.__struct_fields__[1:], "") | {"event": "bound", "ip": "192.168.1.5", "mask": "24"} | values
    found = lease.report("\t".join(["7", *words.values()]) + "\n")
    assert found
    return found


def test_a_report() -> None:
    report = said(router="192.168.1.1 192.168.1.2", seconds="120", renew="0000003c")
    given = lease.terms(report)
    assert (report.client, given.address, given.router) == (7, "192.168.1.5/24", "192.168.1.1")
    assert 119 < given.end - lease.now() <= 120
    assert 59 < given.renew - lease.now() <= 60
    assert lease.terms(said(seconds="4294967295")).end == 0
    assert 3599 < lease.terms(said()).end - lease.now() <= 3600


@pytest.mark.parametrize("line", ["", "udhcpc: started, v1.35.0\n", "x\tbound\t\t\t\t\t\t\t\n", "1\tbound\n"])
def test_no_report(line: str) -> None:
    assert lease.report(line) is None


@pytest.mark.parametrize(
    "values", [{"mask": ""}, {"mask": "99"}, {"ip": "x"}, {"router": "x"}, {"classless": "10.0.0.0/8"}, {"static": "10.0.0.0"}]
)
def test_reports_that_make_no_sense(values: dict[str, str]) -> None:
    with pytest.raises(CniError):
        lease.terms(said(**values))


@pytest.mark.parametrize(
    ("values", "routes"),
    [
        ({}, []),
        ({"router": "192.168.1.1"}, [("0.0.0.0/0", "192.168.1.1", None)]),
        (
            {"static": "10.0.0.0/10.1.2.3 192.168.1.0/192.168.2.3 172.16.1.0/10.0.0.1"},
            [("10.0.0.0/8", "10.1.2.3", None), ("192.168.1.0/24", "192.168.2.3", None), ("172.16.1.0/16", "10.0.0.1", None)],
        ),
        (
            {"classless": "10.0.0.0/8 192.168.1.9 172.16.0.0/16 0.0.0.0", "router": "192.168.1.1", "static": "1.0.0.0/2.0.0.0"},
            [("10.0.0.0/8", "192.168.1.9", None), ("172.16.0.0/16", "0.0.0.0", 253)],
        ),
    ],
)
def test_routes(values: dict[str, str], routes: list[tuple[str, str, int | None]]) -> None:
    answer = lease.result(lease.terms(said(**values)), 50)
    assert [(route.dst, route.gw, route.scope) for route in answer.routes] == routes
    assert {route.priority for route in answer.routes} <= {50}
    assert results.encode(answer, "1.1.0")


LEASE = Lease("net", "cid", "eth0", "/run/netns/x", "4:1", {61: "00ff", 12: "61"}, (1, 3), 5, Terms("10.0.0.2/24"))


def test_leases_as_files(tmp_path: Any) -> None:
    store = lease.Store(str(tmp_path / "dhcp"))
    assert list(store.all()) == []
    store.write(LEASE)
    (tmp_path / "dhcp" / "net" / "cid:eth1").write_text("{")
    (tmp_path / "dhcp" / "net" / "cid:eth2").write_bytes((tmp_path / "dhcp" / "net" / "cid:eth0").read_bytes())
    assert list(store.all()) == [LEASE]
    assert (tmp_path / "dhcp" / "net" / "cid:eth0").stat().st_mode & 0o777 == 0o600
    store.remove(LEASE)
    store.remove(LEASE)
    assert list(store.all()) == []


def test_the_client_s_words() -> None:
    words = client.words(("udhcpc",), LEASE, Options(timeout=0.5, resend_max=1, broadcast=True))
    assert words[:5] == ("nsenter", "--net=/run/netns/x", "udhcpc", "-f", "-i")
    assert " ".join(words[8:]) == "-t 3 -T 1 -A 1 -C -V  -o -O 1 -O 3 -x 0x0c:61 -x 0x3d:00ff -B -r 10.0.0.2"
