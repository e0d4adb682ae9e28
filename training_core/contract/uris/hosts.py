"""Host names and addresses, each in one form: what is compared with a list is what will be connected to."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from training_core.contract.uris.text import Refused

LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
LONGEST_CHARACTERS = 253


def authority(text: str) -> tuple[str, int | None]:
    """Host and port of `host:port`, as ASCII in lower case; IPv6 stands in brackets.

    Raises `Refused` for a user or password, and for what is no host. Names of other scripts become their ASCII form,
    look-alikes of ASCII become ASCII, and a dot at the end is left out.
    """
    if "@" in text:
        raise Refused("a URI holds no user or password; name a secret in dataset.credentials instead")
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Refused("the host is no IPv6 address in brackets")
        return f"[{_ipv6(inside)}]", _port(rest[1:] if rest else None)
    host, colon, port = text.partition(":")
    return normal_host(host), _port(port if colon else None)


def normal_host(host: str) -> str:
    """Raises `Refused` for what is no host, or an address in a form that few can read."""
    name = host if host.isascii() else _in_ascii(host)
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > LONGEST_CHARACTERS or not all(LABEL.fullmatch(label) for label in labels):
        raise Refused("the host is no name of letters, digits, hyphens and dots, and no address")
    if NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(name))
        except AddressValueError:
            raise Refused("an IPv4 address is written as four decimal numbers without leading zeros") from None
    return name


def _in_ascii(host: str) -> str:
    try:
        return unicodedata.normalize("NFKC", host).encode("idna").decode("ascii")
    except UnicodeError:
        raise Refused("the host is no international name; write its xn-- form") from None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise Refused("an IPv6 address in a URI has no zone")
    try:
        return str(IPv6Address(text))
    except AddressValueError:
        raise Refused("the host is no IPv6 address in brackets") from None


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 2**16:
        raise Refused("a port is a number from 1 to 65535")
    return int(text)
