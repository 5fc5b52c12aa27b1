"""Addresses by Go's rules (protocol sheet 5.2): what is taken, in which form it is printed, what is refused."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni.errors import CniError
from ipcni.protocol import address


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("10.44.0.5", "10.44.0.5"),
        ("FD44:0:0::5", "fd44::5"),
        ("::ffff:10.44.0.5", "10.44.0.5"),
        ("::FFFF:a2c:5", "10.44.0.5"),
        ("::10.44.0.5", "::a2c:5"),
        ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
        ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
    ],
)
def test_ip(text: str, printed: str) -> None:
    assert str(address.ip(text)) == printed


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10.44.0",
        "10.44.0.05",
        "10.44.0.256",
        "10.44.0.5/24",
        "fe80::1%eth0",
        "10.44.0.٥",
        "1::2::3",
        " 10.44.0.5",
        "0x0a.1.1.1",
        "1",
    ],
)
def test_no_ip(text: str) -> None:
    with pytest.raises(CniError) as caught:
        address.ip(text)
    assert (caught.value.code, caught.value.msg) == (999, f"invalid IP address: {text}")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("10.44.0.5/24", "10.44.0.5/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.44.0.5/32", "10.44.0.5/32"),
        ("FD44:0:0::5/64", "fd44::5/64"),
        ("::/0", "::/0"),
        ("::ffff:10.44.0.5/120", "10.44.0.5/24"),
    ],
)
def test_cidr(text: str, printed: str) -> None:
    assert address.cidr(text).with_prefixlen == printed


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "/",
            "10.44.0.5",
            "10.44.0.5/",
            "10.44.0.5/33",
            "10.44.0.5/-1",
            "10.44.0.5/+8",
            "10.44.0.5/255.255.255.0",
            "10.44.0.5/ 8",
        ),
        *(
            "10.44.0.5/2٤",
            "10.44.0.05/24",
            "fd44::5/129",
            "fe80::1%eth0/64",
            "::ffff:10.44.0.5/20",
            "10.44.0.5/24/24",
            "10.44.0.5/24\n",
        ),
    ],
)
def test_no_cidr(text: str) -> None:
    with pytest.raises(CniError) as caught:
        address.cidr(text)
    assert (caught.value.code, caught.value.msg) == (999, f"invalid CIDR address: {text}")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("0a:58:0a:00:00:05", "0a:58:0a:00:00:05"),
        ("0A-58-0A-00-00-05", "0a:58:0a:00:00:05"),
        ("0a58.0a00.0005", "0a:58:0a:00:00:05"),
        ("00:00:00:00:fe:80:00:00", "00:00:00:00:fe:80:00:00"),
        (":".join(["0a"] * 20), ":".join(["0a"] * 20)),
    ],
)
def test_mac(text: str, printed: str) -> None:
    assert address.mac(text) == printed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0a:58:0a:00:00",
        "0a:58-0a:00:00:05",
        "0a580a000005",
        "0a:58:0a:00:00:05:",
        "ga:58:0a:00:00:05",
        "0a:58:0a:00:00:05\n",
        "a:5:a:0:0:5",
    ],
)
def test_no_mac(text: str) -> None:
    with pytest.raises(CniError) as caught:
        address.mac(text)
    assert caught.value.msg == f"address {text}: invalid MAC address"


@given(st.ip_addresses())
def test_every_address_is_taken_in_its_own_form(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    found = address.ip(str(one))
    assert found == (getattr(one, "ipv4_mapped", None) or one)
    assert address.ip(str(found)) == found
    assert address.family(str(found)) == found.version


@given(st.ip_addresses(), st.integers(0, 128))
def test_every_prefix_keeps_its_host_bits(one: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int) -> None:
    length = min(length, one.max_prefixlen)
    if getattr(one, "ipv4_mapped", None):
        return
    found = address.cidr(f"{one}/{length}")
    assert (found.ip, found.network.prefixlen) == (one, length)
    assert address.cidr(found.with_prefixlen) == found


@given(st.text(max_size=12))
def test_no_text_does_anything_else_than_be_refused(text: str) -> None:
    for kind in (address.ip, address.cidr, address.mac):
        said = text
        try:
            kind(text)
        except CniError as error:
            said = error.msg
        assert text in said
