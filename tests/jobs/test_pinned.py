"""Where connections go: real ones, to a server on a loopback address."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.errors import Forbidden, Unavailable
from app.jobs.pinned import pinned_transport
from app.jobs.sources import fetch_source
from app.store.blobs import LocalBlobs

LOOPBACK = ("127.0.0.1/32",)


class Handler(BaseHTTPRequestHandler):
    """Answers with the path, or redirects to what stands behind /to/."""

    def do_GET(self) -> None:
        target = self.path.removeprefix("/to/") if self.path.startswith("/to/") else ""
        body = b"" if target else self.path.encode()
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Names:
    """A resolver that gives its answers one after the other, and the last one for ever."""

    def __init__(self, *answers: str) -> None:
        self.answers = [answer.split() for answer in answers]
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


Fetch = Callable[..., str]


@pytest.fixture
def fetch(tmp_path: Path, server: ThreadingHTTPServer) -> Fetch:
    """What is at the path of one.test, from which one may be sent to two.test."""

    def fetch(path: str, names: Names, networks: tuple[str, ...] = LOOPBACK) -> str:
        one, two = (f"http://{host}:{server.server_port}/" for host in ("one.test", "two.test"))
        blobs = LocalBlobs(tmp_path / "blobs")
        blob = fetch_source(
            one + path.replace("TWO", two),
            prefixes=[one, two],
            blobs=blobs,
            max_bytes=10**6,
            on_bytes=lambda *_: None,
            transport=pinned_transport(networks, names),
        )
        with blobs.open(blob.sha256) as file:
            return file.read().decode()

    return fetch


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(fetch: Fetch) -> None:
    names = Names("127.0.0.1", "169.254.169.254")
    assert fetch("a.zip", names) == "/a.zip"
    assert names.asked == ["one.test"]


def test_a_host_that_one_is_redirected_to_is_looked_at_as_the_first(fetch: Fetch) -> None:
    assert fetch("to/TWOa.zip", Names("127.0.0.1")) == "/a.zip"
    names = Names("127.0.0.1", "169.254.169.254")
    with pytest.raises(Forbidden, match=r"two\.test has an address that is not public"):
        fetch("to/TWOa.zip", names)
    assert names.asked == ["one.test", "two.test"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "fe80::1",
        "fe80::1%lo",
        "fc00::1",
        "ff02::1",
        "8.8.8.8 10.0.0.1",
    ],
)
def test_an_address_that_is_not_public_is_never_connected_to(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(Forbidden, match="not public"):
        fetch("a.zip", Names(address), ())


def test_another_address_of_the_name_is_tried_where_one_does_not_answer(fetch: Fetch) -> None:
    networks = ("127.0.0.0/8",)
    assert fetch("a.zip", Names("127.0.0.2 127.0.0.1"), networks) == "/a.zip"
    for addresses in ("127.0.0.2", ""):
        with pytest.raises(Unavailable, match="ConnectError"):
            fetch("a.zip", Names(addresses), networks)


def test_a_mapped_address_counts_as_the_one_it_leads_to(fetch: Fetch) -> None:
    assert fetch("a.zip", Names("::ffff:127.0.0.1")) == "/a.zip"


def test_a_proxy_of_the_environment_is_not_asked(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch("a.zip", Names("127.0.0.1")) == "/a.zip"


@pytest.mark.parametrize(("host", "is_trusted"), [("one.test", True), ("two.test", False)])
def test_over_tls_the_certificate_must_be_that_of_the_name(
    server: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    is_trusted: bool,
) -> None:
    path = tmp_path / "certificate.pem"
    path.write_bytes(certificate("one.test"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    transport = pinned_transport(LOOPBACK, Names("127.0.0.1"))
    url = f"https://{host}:{server.server_port}/a.zip"
    with httpx.Client(transport=transport, trust_env=False) as client:
        if is_trusted:
            assert client.get(url).text == "/a.zip"
        else:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                client.get(url)


def certificate(host: str) -> bytes:
    """One that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
