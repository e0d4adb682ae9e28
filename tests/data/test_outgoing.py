"""Connections go the one way out: resolved once, looked at, and opened to the very address that was looked at."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.data.opening import open_uri, refused, touch
from tests.data.servers import Site, serve
from training_core.contract.credentials import Credentials, OperatorEntry
from training_core.data.sources import retry
from training_core.data.sources.http import HttpClient
from training_core.outgoing import Denied, Networks, check_host

REAL = socket.getaddrinfo


class Resolver:
    """Answers each question with the next of its answers, and the last one from then on."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: Any, *arguments: Any, **options: Any) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [one for address in answer for one in REAL(address, port, *arguments, **options)]


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that sockets are told to connect to; none but loopback is let out."""
    found: list[str] = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            found.append(str(address[0]))
            if not ipaddress.ip_address(address[0]).is_loopback:
                raise ConnectionRefusedError
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Watched)
    return found


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site({"/a.csv": b"path,label\n"})) as running:
        yield running


def ask(url: str, networks: Networks) -> bytes:
    return HttpClient(1, networks).request("GET", url, {}, most=100).body


def test_a_name_that_changes_its_mind_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, connects: list[str], site: Site
) -> None:
    port = site.host.rpartition(":")[2]
    resolver = Resolver(["8.8.8.8"], ["127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with pytest.raises(OSError, match="no answer"):
        ask(f"http://rebinding.example:{port}/a.csv", Networks())
    assert resolver.asked == 1
    assert connects == ["8.8.8.8"]
    with pytest.raises(Denied, match=r"rebinding\.example lies at"):
        ask(f"http://rebinding.example:{port}/a.csv", Networks())
    assert connects == ["8.8.8.8"]
    assert not site.asked


@pytest.mark.parametrize(
    "answer",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["10.0.0.1"]],
)
def test_one_address_that_may_not_be_reached_refuses_the_name(
    monkeypatch: pytest.MonkeyPatch, connects: list[str], answer: list[str]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Resolver(answer))
    with pytest.raises(Denied) as denied:
        ask("http://name.example/a", Networks())
    assert "TRAINYARD_ALLOWED_NETWORKS" in str(denied.value.hint)
    assert answer[-1] not in f"{denied.value.message} {denied.value.hint}"
    with pytest.raises(Denied):
        check_host("name.example", 443, Networks())
    assert connects == []


def test_the_operator_allows_hosts_and_networks(site: Site) -> None:
    for entry in ("127.0.0.0/8", "127.0.0.1", site.host):
        assert ask(f"{site.url}/a.csv", Networks.of([entry])) == b"path,label\n"
    for entry in ("10.0.0.0/8", "127.0.0.1:9", "localhost"):
        with pytest.raises(Denied):
            ask(f"{site.url}/a.csv", Networks.of([entry]))


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(f"{site.url}/a.csv", Networks.of(["127.0.0.1"])) == b"path,label\n"


def test_a_redirect_to_a_denied_address_is_not_followed(tmp_path: Path, site: Site) -> None:
    with serve(Site({"/a.csv": b"path,label\n"})) as inside:
        for target in (
            inside.url,
            inside.url.replace("127.0.0.1", "localhost"),
            inside.url.replace("127.0.0.1", "[::1]"),
        ):
            site.moved["/moved.csv"] = f"{target}/a.csv"
            refused(
                tmp_path, f"{site.url}/moved.csv", "dataset_forbidden", "may not reach", "TRAINYARD_ALLOWED_NETWORKS",
                allowed_uris=["http://"], allowed_networks=[site.host],
            )  # fmt: skip
        assert not inside.asked


def test_the_endpoint_of_a_project_is_like_any_address_and_the_operators_is_trusted(tmp_path: Path, site: Site) -> None:
    spec = {"credentials": "own"}
    written = {"endpoint_url": site.url, "key": "k", "secret": "s"}
    for secret in (Credentials.model_validate(written), OperatorEntry.model_validate({**written, "projects": "*"})):
        options = {"dataset": spec, "secret": secret, "allowed_networks": []}
        if isinstance(secret, OperatorEntry):
            refused(tmp_path, "s3://pets/x", "dataset_unreachable", "there is nothing", **options)
            assert site.asked
        else:
            refused(tmp_path, "s3://pets/x", "dataset_forbidden", "may not reach", **options)
            assert not site.asked


def test_a_folder_with_a_space_is_read_by_its_uri(tmp_path: Path) -> None:
    for name in ("my pets", "100% pets", "pets#1", "what?"):
        folder = touch(tmp_path / name, "cats/1.png", "dogs/1.png")
        assert open_uri(tmp_path, folder.as_uri())[0].classes == ["cats", "dogs"]
    assert open_uri(tmp_path, f"file://{tmp_path}/my pets")[0].classes == ["cats", "dogs"]


class Secure(ThreadingHTTPServer):
    """`names` are those that clients asked for in the handshake, `heard` the headers that came."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Heard)
        self.names: list[str | None] = []
        self.heard: list[dict[str, str]] = []
        context.sni_callback = lambda _, name, __: self.names.append(name)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class _Heard(BaseHTTPRequestHandler):
    server: Secure

    def do_GET(self) -> None:
        self.server.heard.append(dict(self.headers.items()))
        elsewhere = self.path == "/moved.csv"
        self.send_response(302 if elsewhere else 200)
        if elsewhere:
            self.send_header("Location", f"https://other.example:{self.server.server_address[1]}/list.csv")
        content = b"" if elsewhere else b"path,label\n1.png,cat\n2.png,dog\n"
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def secure(folder: Path, *names: str) -> Iterator[Secure]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = made.sign(key, hashes.SHA256())
    pem = folder / "site.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = Secure(context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_name_stays_in_the_handshake_the_host_and_the_certificate_and_a_token_with_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Resolver(["127.0.0.1"]))
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0001)
    (tmp_path / "credentials.json").write_text('{"site": {"token": "canary-token"}}')
    options = {
        "dataset": {"credentials": "site", "format": "manifest"}, "credentials_file": tmp_path / "credentials.json",
        "allowed_uris": ["https://"],
    }  # fmt: skip
    with secure(tmp_path, "pets.example", "other.example") as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "site.pem"))
        port = server.server_address[1]
        open_uri(tmp_path, f"https://pets.example:{port}/list.csv", **options)
        assert set(server.names) == {"pets.example"}
        assert {heard["Host"] for heard in server.heard} == {f"pets.example:{port}"}
        assert {heard["Authorization"] for heard in server.heard} == {"Bearer canary-token"}
        server.heard.clear()
        open_uri(tmp_path, f"https://pets.example:{port}/moved.csv", **options)
        told = {heard["Host"]: heard.get("Authorization") for heard in server.heard}
        assert told == {f"pets.example:{port}": "Bearer canary-token", f"other.example:{port}": None}
        refused(tmp_path, f"https://third.example:{port}/list.csv", "dataset_unreachable", **options)
