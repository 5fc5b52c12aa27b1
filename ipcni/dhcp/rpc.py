"""Go's net/rpc on a unix socket: what plugins and daemons of either suite say to each other (IPAM sheet 4.6)."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from ipcni.dhcp import gob
from ipcni.dhcp.gob import BYTES, INT, STRING, UINT, Decoder, Encoder, GobError, Slice, Struct
from ipcni.errors import CniError
from ipcni.protocol import address as addresses
from ipcni.protocol.result import Dns, IpConfig, Result, Route

DEFAULT_SOCKET = "/run/cni/dhcp.sock"
_HELLO = b"CONNECT /_goRPC_ HTTP/1.0\n\n"
_WELCOME = b"HTTP/1.0 200 Connected to Go RPC\n\n"
_LINES = 8192  # bytes of an HTTP head
_PATIENCE, _LONG = 10, 60  # seconds a peer may take for a part of a message, and a daemon for all but a lease

_REQUEST = Struct("Request", (("ServiceMethod", STRING), ("Seq", UINT)))
_RESPONSE = Struct("Response", (("ServiceMethod", STRING), ("Seq", UINT), ("Error", STRING)))
_ARGS = Struct(
    "CmdArgs",
    (
        ("ContainerID", STRING),
        ("Netns", STRING),
        ("IfName", STRING),
        ("Args", STRING),
        ("Path", STRING),
        ("NetnsOverride", STRING),
        ("StdinData", BYTES),
    ),
)
_NET = Struct("IPNet", (("IP", BYTES), ("Mask", BYTES)))
_IP = Struct("IPConfig", (("Interface", INT), ("Address", _NET), ("Gateway", BYTES)))
_ROUTE = Struct(
    "Route",
    (("Dst", _NET), ("GW", BYTES), ("MTU", INT), ("AdvMSS", INT), ("Priority", INT), ("Table", INT), ("Scope", INT)),
)
_RESULT = Struct("Result", (("CNIVersion", STRING), ("IPs", Slice(_IP)), ("Routes", Slice(_ROUTE))))
_NOTHING = Struct("")


class NoDaemonError(CniError):
    """Nobody listens."""


class Args(msgspec.Struct, frozen=True):
    """What a plugin tells the daemon: the CNI call."""

    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: str = ""
    stdin: bytes = b""


class _Wire:
    """A connection: messages in both directions."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._in, self._out = Decoder(), Encoder()
        self._buffer = b""

    def head(self) -> bytes:
        """The lines up to an empty one. Raises GobError when there are too many."""
        while True:
            for end in (b"\n\n", b"\r\n\r\n"):
                head, found, rest = self._buffer.partition(end)
                if found:
                    self._buffer = rest
                    return head
            if len(self._buffer) > _LINES:
                raise GobError("no net/rpc")
            self._more()

    def send(self, *values: tuple[Struct, dict[str, Any]], head: bytes = b"") -> None:
        self._socket.sendall(head + b"".join(self._out.message(kind, value) for kind, value in values))

    def receive(self) -> dict[str, Any]:
        """The next value. Raises EOFError at the end, GobError for what is no gob."""
        while True:
            first = self._take(1)
            more = gob.length(first[0])
            size = int.from_bytes(self._take(more), "big") if more else first[0]
            value = self._in.value(self._take(gob.checked(size)))
            if value is not None:
                return value

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        part, self._buffer = self._buffer[:count], self._buffer[count:]
        return part

    def _more(self) -> None:
        part = self._socket.recv(1 << 16)
        if not part:
            raise EOFError
        self._buffer += part


def call(path: str, method: str, args: Args) -> Result:
    """Has the daemon at a socket do `DHCP.<method>`; waits for a lease as long as the daemon tries to get one.

    Raises CniError in the reference's words.
    """
    name = f"DHCP.{method}"
    request = {
        "ContainerID": args.container_id,
        "Netns": args.netns,
        "IfName": args.ifname,
        "Args": args.args,
        "Path": args.path,
        "StdinData": args.stdin,
    }
    with contextlib.closing(_dial(path)) as connection:
        wire = _Wire(connection)
        try:
            connection.settimeout(_PATIENCE)
            connection.sendall(_HELLO)
            head = wire.head()
            if not head.split(b"\n")[0].rstrip() == _WELCOME.rstrip():
                raise GobError(f"unexpected HTTP response: {head[:80].decode('utf-8', 'replace')}")
            wire.send((_REQUEST, {"ServiceMethod": name}), (_ARGS, request))
            connection.settimeout(None if method == "Allocate" else _LONG)
            response = wire.receive()
            body = wire.receive()
        except EOFError:
            raise CniError(f"error calling {name}: unexpected EOF", details=f"the daemon at {path} ended meanwhile") from None
        except (GobError, OSError) as error:
            raise CniError(f"error calling {name}: {error}", details=f"who listens at {path}?") from error
    if problem := response.get("Error"):
        raise CniError(f"error calling {name}: {problem}")
    return _decoded(body)


def _dial(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        reason = (error.strerror or str(error)).lower()
        raise NoDaemonError(
            f"error dialing DHCP daemon: dial unix {path}: connect: {reason}",
            details="is it running? `dhcp daemon` starts it, or `systemctl start cni-dhcp.socket`; see `ipam.daemonSocketPath`",
        ) from error
    return connection


def serve(connection: socket.socket, perform: Callable[[str, Args], Result | None]) -> None:
    """Answers the calls on a connection until its end. `perform` gets a method's name; its CniError is the answer, LookupError too."""
    wire = _Wire(connection)
    connection.settimeout(_PATIENCE)
    with contextlib.suppress(EOFError, GobError, OSError):
        if not wire.head().startswith(b"CONNECT /_goRPC_ "):
            connection.sendall(b"HTTP/1.0 405 Method Not Allowed\r\n\r\n405 must CONNECT\n")
            return
        connection.sendall(_WELCOME)
        while True:
            header, args = wire.receive(), wire.receive()
            method = header.get("ServiceMethod", "")
            response = {"ServiceMethod": method, "Seq": header.get("Seq", 0)}
            result = None
            try:
                result = perform(method, _args(args))
            except CniError as error:
                response["Error"] = error.msg
            except LookupError:
                response["Error"] = f"rpc: can't find method {method}"
            body = (_NOTHING, {}) if result is None else (_RESULT, _encoded(result))
            wire.send((_RESPONSE, response), body)


def _args(value: dict[str, Any]) -> Args:
    def text(name: str) -> str:
        found = value.get(name, "")
        return found if isinstance(found, str) else ""

    stdin = value.get("StdinData", b"")
    return Args(
        container_id=text("ContainerID"),
        netns=text("Netns"),
        ifname=text("IfName"),
        args=text("Args"),
        path=text("Path"),
        stdin=stdin if isinstance(stdin, bytes) else b"",
    )


def _net(text: str) -> dict[str, bytes]:
    each = addresses.cidr(text)
    return {"IP": each.ip.packed, "Mask": each.netmask.packed}


def _encoded(result: Result) -> dict[str, Any]:
    return {
        "IPs": [
            {"Address": _net(ip.address), "Gateway": addresses.ip(ip.gateway).packed if ip.gateway else b""} for ip in result.ips
        ],
        "Routes": [
            {
                "Dst": _net(route.dst),
                "GW": addresses.ip(route.gw).packed if route.gw else b"",
                "Priority": route.priority,
                "Scope": route.scope,
            }
            for route in result.routes
        ],
    }


def _decoded(body: dict[str, Any]) -> Result:
    """A result as any daemon writes it. Raises CniError for one that makes no sense."""
    try:
        ips = tuple(
            IpConfig(address=_cidr(each["Address"]), gateway=_ip(each.get("Gateway", b""))) for each in body.get("IPs", ())
        )
        routes = tuple(_route(each) for each in body.get("Routes", ()))
        dns = body.get("DNS", {})
        lists = {key.lower(): tuple(map(str, dns.get(key, ()))) for key in ("Nameservers", "Search", "Options")}
        return Result(ips=ips, routes=routes, dns=Dns(domain=str(dns.get("Domain", "")), **lists))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CniError(f"the DHCP daemon's answer makes no sense: {error!r}") from error


def _route(each: dict[str, Any]) -> Route:
    return Route(
        dst=_cidr(each["Dst"]),
        gw=_ip(each.get("GW", b"")),
        mtu=each.get("MTU", 0),
        advmss=each.get("AdvMSS", 0),
        priority=each.get("Priority", 0),
        table=each.get("Table"),
        scope=each.get("Scope"),
    )


def _cidr(net: dict[str, bytes]) -> str:
    length = bin(int.from_bytes(net.get("Mask", b""), "big")).count("1")
    return f"{_ip(net['IP'])}/{length}"


def _ip(data: bytes) -> str:
    import ipaddress

    return str(ipaddress.ip_address(data)) if data else ""
