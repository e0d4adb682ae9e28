"""Which addresses are of the public internet, by the registries of special-purpose addresses (IANA, RFC 6890)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# This network, private, carrier-grade NAT, loopback, link-local (metadata of most clouds), protocol assignments (those
# of Oracle), documentation, relays of 6to4, benchmarks, multicast, reserved; and the address of Azure's host agent.
NOT_PUBLIC_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
)  # fmt: skip
PUBLIC_6 = IPv6Network("2000::/3")  # all that is assigned; loopback, private, link-local and multicast lie outside
NOT_PUBLIC_6 = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20")
)  # Teredo is in the first
NAT64 = IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = IPv6Network("2002::/16")
ISATAP = 0x5EFE


def is_public(address: Address) -> bool:
    """False as well for an IPv6 address that leads to an IPv4 one which is not."""
    inner = within(address)
    if inner is not None and not is_public(inner):
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    if address.ipv4_mapped is not None or address in NAT64:
        return True  # by what is within
    return address in PUBLIC_6 and not any(address in network for network in NOT_PUBLIC_6)


def within(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: mapped, translated (NAT64), tunnelled (6to4, ISATAP)."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in SIX_TO_FOUR:
        return address.sixtofour
    bits = int(address)
    if address in NAT64 or (bits >> 32) & 0xFCFFFFFF == ISATAP:
        return IPv4Address(bits & 0xFFFFFFFF)
    return None
