"""Where connections may go beside the public internet: what the operator allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from training_core.contract.uris.hosts import authority
from training_core.contract.uris.links import DEFAULT_PORTS, check_endpoint
from training_core.contract.uris.text import Refused
from training_core.outgoing.addresses import Address, Network, is_public, within


@dataclass(frozen=True)
class Networks:
    """`ranges` of addresses, and `places`: hosts as they are written, with a port or for all ports."""

    ranges: tuple[Network, ...] = ()
    places: frozenset[tuple[str, int | None]] = field(default=frozenset())

    @classmethod
    def of(cls, entries: Iterable[str]) -> Networks:
        """Of networks (`10.0.0.0/8`), addresses and hosts (`minio`, `minio:9000`). Raises `ValueError` in words."""
        ranges: list[Network] = []
        places: set[tuple[str, int | None]] = set()
        for entry in entries:
            try:
                ranges.append(ip_network(entry))
            except ValueError:
                places.add(_place(entry))
        return cls(tuple(ranges), frozenset(places))

    def trusting(self, url: str) -> Networks:
        """These, and the host and port of an address that the operator wrote. Raises `Refused` for no address."""
        link = check_endpoint(url)
        place = (link.host, link.port or DEFAULT_PORTS[link.scheme])
        return Networks(self.ranges, self.places | {place})

    def allow(self, host: str, port: int, address: Address) -> bool:
        """Whether a connection to `host`, which lies at `address`, may be opened."""
        if (host, port) in self.places or (host, None) in self.places:
            return True
        inner = within(address)
        if any(one in network for network in self.ranges for one in (address, inner) if one is not None):
            return True
        return is_public(address)


EVERYWHERE = Networks((IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))  # for what the operator alone wrote down


def _place(entry: str) -> tuple[str, int | None]:
    try:
        return authority(entry)
    except Refused:
        raise ValueError(
            f"{entry!r} is no network (10.0.0.0/8), no address and no host (minio or minio:9000)"
        ) from None
