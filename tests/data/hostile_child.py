"""Opens hostile URIs for real, alone in a network namespace in which every address there is answers: this host.

The kernel counts the connections by the address that they are for. A server on port 80 of all addresses redirects to
places that nobody may reach. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.data.hostile_uris import DENIED, NAMES, Hostile, hostile_uris
from tests.data.opening import make_run
from training_core.contract.errors import Failed
from training_core.contract.run_dir import RunSpec
from training_core.data.sources import open_source, retry
from training_core.outgoing.addresses import NOT_PUBLIC_4, is_public
from training_core.tasks.image_classification.origin import find_file

RULES = f"""
table inet watch {{
 counter denied {{ }}
 counter others {{ }}
 chain out {{
  type filter hook output priority 0; policy accept;
  ip daddr {{ {", ".join(map(str, NOT_PUBLIC_4))} }} tcp flags syn / syn,ack counter name denied
  ip6 daddr != 2000::/3 tcp flags syn / syn,ack counter name denied
  ip6 daddr {{ 2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20 }} tcp flags syn / syn,ack counter name denied
  tcp flags syn / syn,ack counter name others
 }}
}}
"""
LOCATIONS = cycle(
    [f"http://{host}:80/secret.csv" for host in DENIED]
    + ["//127.0.0.1/x", "s3://localhost:80#/x", "file:///etc/passwd"]
)


class Redirects(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", next(LOCATIONS).encode().decode("latin-1"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


class Everywhere(ThreadingHTTPServer):
    address_family = socket.AF_INET6  # and IPv4 with it
    daemon_threads = True


def counted(name: str) -> int:
    told = subprocess.run(["nft", "-j", "list", "counter", "inet", "watch", name], capture_output=True, check=True)
    return int(next(one["counter"]["packets"] for one in json.loads(told.stdout)["nftables"] if "counter" in one))


def resolver(real: Any) -> Any:
    """Numbers as the system reads them, our names as the table says, and all others in the public internet."""

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        public = [host] if host == "localhost" or is_number(host) else ["8.8.8.8"]
        return [one for address in NAMES.get(host, public) for one in real(address, *arguments, **options)]

    return resolve


def is_number(host: str) -> bool:
    try:
        socket.inet_aton(host)
    except OSError:
        return ":" in host
    return True


def attempt(run: RunSpec, one: Hostile) -> str:
    """How opening it ended."""
    try:
        if one.field == "dataset.uri":
            next(open_source(run, run.cache_dir).entries(), None)
        else:
            find_file(run, one.uri)
    except Failed as failed:
        return "denied" if "may not reach" in failed.message else str(failed.reason)
    return "opened"


def main(folder: Path, seed: int, count: int) -> None:
    for command in ("ip link set lo up", "ip route add local default dev lo", "ip -6 route add local default dev lo"):
        subprocess.run(command.split(), check=True)
    subprocess.run(["nft", "-f", "-"], input=RULES.encode(), check=True)
    server = Everywhere(("::", 80), Redirects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    socket.getaddrinfo = resolver(socket.getaddrinfo)
    retry.FIRST_PAUSE_SECONDS = 0.0001
    reached: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple) and not is_public(ip_address(arguments[1][0])):
            reached.append(str(arguments[1]))

    sys.addaudithook(watch)
    ends: Counter[str] = Counter()
    everything = ["http://", "https://", "s3://"]
    for one in hostile_uris(seed, count):
        if one.is_uri:
            run = make_run(folder, one.uri, allowed_uris=everything, allowed_networks=[])
            ends[attempt(run, one)] += 1
    before = counted("denied")
    told = {"ends": ends, "reached": reached[:10], "denied_packets": before, "other_packets": counted("others")}
    run = make_run(folder, "http://127.0.0.1/x.csv", allowed_uris=everything, allowed_networks=["127.0.0.1"])
    attempt(run, Hostile("http://127.0.0.1/x.csv", "dataset.uri", True))
    sys.stdout.write(json.dumps({**told, "counter_sees": counted("denied") > before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
