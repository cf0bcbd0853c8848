"""TLS: authorities and client certificates of certs.d, and what happens without them."""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import ipaddress
import socket
import socketserver
import ssl
import threading

import pytest

from cfs_core.plugin import ConfigError, Descriptor, Digest, TlsError, TransportError
from cfs_testkit import faults
from cfs_testkit.images import build_image
from cfs_testkit.registry import Access, RegistryServer
from cfs_transport_registry.certificates import tls_context
from cfs_transport_registry.settings import Settings

REASON = "cryptography makes the certificates: install the extra `test`"
x509 = pytest.importorskip("cryptography.x509", reason=REASON)
hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes", reason=REASON)
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization", reason=REASON)
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec", reason=REASON)
NameOID = x509.oid.NameOID

NOW = dt.datetime.now(dt.UTC)


class Authority:
    def __init__(self, folder, name):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._build(self.name, self.key, ca=True)
        self.path = self._write(f"{name}.crt", self.certificate)

    def _build(self, subject, key, *, ca, address="127.0.0.1"):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=1))
            .not_valid_after(NOW + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if ca:  # demanded by Python 3.13 (RFC 5280 4.2.1.3)
            uses = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False) | {"key_cert_sign": True}
            builder = builder.add_extension(x509.KeyUsage(**uses), critical=True)
        else:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, name, certificate):
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, name, address="127.0.0.1"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._write(f"{name}.cert", self._build(subject, key, ca=False, address=address))
        path = self.folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return certificate, path


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


@pytest.fixture
def image():
    return build_image([{"a": "b"}])


def certs_d(tmp_path, host, *files):
    folder = tmp_path / "home/.config/containers/certs.d" / host
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files:
        (folder / name).write_bytes(path.read_bytes())
    return folder


def fetch(transport, server):
    return transport.fetch_manifest(transport.parse(f"docker://{server.host}/app:1"))[1]


def test_an_unknown_authority_is_refused_until_certs_d_has_it(authority, make_transport, image, tmp_path):
    with RegistryServer(tls=authority.issue("server")) as server:
        image.publish(server, "app", "1")
        strict = make_transport(tls_verify=None)
        with pytest.raises(TlsError) as caught:
            fetch(strict, server)
        assert (caught.value.code, caught.value.exit_status) == ("transport.tls", 6)
        assert "certs.d" in caught.value.hint
        certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        assert fetch(make_transport(tls_verify=None), server) == image.manifest
        assert fetch(make_transport(tls_verify=False), server) == image.manifest


def test_a_certificate_for_another_host_is_refused(authority, make_transport, image, tmp_path):
    with RegistryServer(tls=authority.issue("server", address="127.0.0.2")) as server:
        image.publish(server, "app", "1")
        certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        with pytest.raises(TlsError):
            fetch(make_transport(tls_verify=None), server)


def test_a_client_certificate_is_shown(authority, make_transport, image, tmp_path):
    with RegistryServer(tls=authority.issue("server"), client_ca=authority.path) as server:
        image.publish(server, "app", "1")
        folder = certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        with pytest.raises(TransportError) as caught:
            fetch(make_transport(tls_verify=None), server)
        assert caught.value.code in ("transport.tls", "transport.unreachable")
        certificate, key = authority.issue("client")
        (folder / "client.cert").write_bytes(certificate.read_bytes())
        (folder / "client.key").write_bytes(key.read_bytes())
        assert fetch(make_transport(tls_verify=None), server) == image.manifest
        assert fetch(make_transport(tls_verify=None, cert_dir=str(folder)), server) == image.manifest


@pytest.mark.parametrize("flat", [True, False])
def test_cert_dir_has_one_layout_and_the_hint_says_where(authority, make_transport, image, tmp_path, flat):
    with RegistryServer(tls=authority.issue("server")) as server:
        image.publish(server, "app", "1")
        given = tmp_path / "given"
        folder = given if flat else given / server.host
        folder.mkdir(parents=True)
        with pytest.raises(TlsError) as caught:
            fetch(make_transport(tls_verify=None, cert_dir=str(given)), server)
        assert f"{given / server.host}/ca.crt" in caught.value.hint
        (folder / "ca.crt").write_bytes(authority.path.read_bytes())
        assert fetch(make_transport(tls_verify=None, cert_dir=str(given)), server) == image.manifest
        (given / server.host).mkdir(exist_ok=True)
        (given / "ca.crt").write_bytes(authority.path.read_bytes())
        with pytest.raises(ConfigError) as caught:
            fetch(make_transport(tls_verify=None, cert_dir=str(given)), server)
        assert "one layout" in caught.value.hint


def test_the_hint_names_the_directory_of_other_certificates_in_force(authority, make_transport, tmp_path):
    other = Authority(tmp_path, "other")
    with RegistryServer(tls=authority.issue("server")) as server:
        folder = certs_d(tmp_path, server.host, ("ca.crt", other.path))
        with pytest.raises(TlsError) as caught:
            fetch(make_transport(tls_verify=None), server)
        assert str(folder) in caught.value.hint


@pytest.mark.parametrize("name", ["client.cert", "client.key", "ca.crt"])
def test_half_or_broken_files_are_errors_of_the_configuration(authority, make_transport, tmp_path, name):
    with RegistryServer(tls=authority.issue("server")) as server:
        folder = certs_d(tmp_path, server.host)
        (folder / name).write_text("not pem")
        with pytest.raises(ConfigError) as caught:
            fetch(make_transport(tls_verify=None), server)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["docker.io", "registry-1.docker.io"])
def test_the_hub_has_two_names_in_certs_d(tmp_path, name):
    folder = tmp_path / "etc/containers/certs.d" / name
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text("not pem")
    with pytest.raises(ConfigError) as caught:
        tls_context("registry-1.docker.io", "registry-1.docker.io", Settings(root=tmp_path), verify=True)
    assert str(folder) in str(caught.value)
    tls_context("quay.io", "quay.io", Settings(root=tmp_path), verify=True)


def test_an_upload_to_plain_http_is_refused(authority, make_transport, tmp_path):
    blob = Descriptor(media_type="", digest=Digest.of(b"data"), size=4)
    with RegistryServer(tls=authority.issue("server")) as server, RegistryServer() as plain:
        location = {"Location": plain.url("/v2/app/blobs/uploads/1")}
        server.fault("/uploads/", faults.Status(202, location), method="POST", forever=True)
        certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        transport = make_transport(tls_verify=None)
        reference = transport.parse(f"docker://{server.host}/app:1")
        with transport.open_writer(reference) as writer, pytest.raises(TlsError):
            writer.put_blob(blob, [b"data"])
        assert plain.seen == []


def test_a_redirect_to_plain_http_is_refused(authority, make_transport, image, tmp_path):
    with RegistryServer(tls=authority.issue("server")) as server, RegistryServer() as plain:
        image.publish(server, "app", "1")
        server.fault("/manifests/", faults.Redirect(plain.url("/v2/app/manifests/1")), forever=True)
        certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        with pytest.raises(TlsError):
            fetch(make_transport(tls_verify=None), server)
        assert plain.seen == []


def test_credentials_are_not_sent_to_a_plain_token_server(authority, make_transport, image, tmp_path):
    with (
        RegistryServer(tls=authority.issue("server")) as server,
        RegistryServer(access=Access("token", "alice", "pw")) as plain,
    ):
        image.publish(server, "app", "1")
        challenge = {"WWW-Authenticate": f'Bearer realm="{plain.url("/token")}",service="x",scope="y"'}
        server.fault("/manifests/", faults.Status(401, challenge), forever=True)
        certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        path = tmp_path / "auth.json"
        path.write_text(f'{{"auths": {{"{server.host}": {{"auth": "YWxpY2U6cHc="}}}}}}')
        with pytest.raises(TlsError):
            fetch(make_transport(tls_verify=None, authfile=str(path)), server)
        assert plain.seen == []


def test_a_token_server_that_the_registry_names_over_tls_gets_the_credentials(
    authority, make_transport, image, tmp_path
):
    with (
        RegistryServer(tls=authority.issue("server")) as server,
        RegistryServer(access=Access("token", "alice", "pw"), tls=authority.issue("tokens")) as tokens,
    ):
        image.publish(server, "app", "1")
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url("/token")}",service="x",scope="y"'}
        server.fault("/manifests/", faults.Status(401, challenge))
        certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        path = tmp_path / "auth.json"
        path.write_text(f'{{"auths": {{"{server.host}": {{"auth": "YWxpY2U6cHc="}}}}}}')
        assert fetch(make_transport(tls_verify=None, authfile=str(path)), server) == image.manifest
        assert [seen.headers["Authorization"] for seen in tokens.seen] == ["Basic YWxpY2U6cHc="]
        assert not [seen for seen in server.seen if seen.headers.get("Authorization", "").startswith("Basic")]


def test_a_proxy_that_opens_the_connection_learns_nothing(authority, make_transport, image, tmp_path, monkeypatch):
    """It answers CONNECT, and then as the registry, with a certificate of an authority of its own."""
    certificate, key = Authority(tmp_path, "proxy").issue("registry.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    learned = []

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self):
            learned.append(self.rfile.readline())
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(OSError):
                learned.append(context.wrap_socket(self.connection, server_side=True).recv(65536))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_address[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        path = tmp_path / "auth.json"
        path.write_text('{"auths": {"registry.test": {"auth": "YWxpY2U6cHc="}}}')
        transport = make_transport(tls_verify=None, authfile=str(path))
        with pytest.raises(TlsError):
            transport.fetch_manifest(transport.parse("docker://registry.test/app:1"))
        proxy.shutdown()
    assert learned
    assert {line.rpartition(b" ")[0] for line in learned if line} == {b"CONNECT registry.test:443"}


def test_a_client_certificate_is_not_shown_to_a_redirects_target(authority, make_transport, image, tmp_path):
    with (
        RegistryServer(tls=authority.issue("server")) as server,
        RegistryServer(tls=authority.issue("cdn"), client_ca=authority.path) as cdn,
    ):
        image.publish(server, "app", "1")
        image.publish(cdn, "app", "1")
        server.fault("/manifests/", faults.Redirect(cdn.url("/v2/app/manifests/1")), forever=True)
        certificate, key = authority.issue("client")
        certs_d(tmp_path, server.host, ("ca.crt", authority.path), ("client.cert", certificate), ("client.key", key))
        with pytest.raises(TransportError) as caught:
            fetch(make_transport(tls_verify=None), server)
        assert caught.value.code in ("transport.tls", "transport.unreachable")
        assert cdn.seen == []


class _Tunnel(socketserver.BaseRequestHandler):
    """An HTTP proxy that knows CONNECT."""

    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(4096)
        self.server.asked.append(head.split()[1].decode())
        host, _, port = self.server.asked[-1].rpartition(":")
        with socket.create_connection((host, int(port))) as other:
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            pairs = [(self.request, other), (other, self.request)]
            threads = [threading.Thread(target=self.pump, args=pair, daemon=True) for pair in pairs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)

    @staticmethod
    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_certs_d_counts_behind_a_proxy_too(authority, make_transport, image, tmp_path, monkeypatch):
    with (
        RegistryServer(tls=authority.issue("server")) as server,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Tunnel) as proxy,
    ):
        proxy.daemon_threads = True
        proxy.asked = []
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_address[1]}")
        image.publish(server, "app", "1")
        with pytest.raises(TlsError):
            fetch(make_transport(tls_verify=None), server)
        certs_d(tmp_path, server.host, ("ca.crt", authority.path))
        transport = make_transport(tls_verify=None)
        assert fetch(transport, server) == image.manifest
        transport.close()
        assert set(proxy.asked) == {server.host}
        proxy.shutdown()
