"""The HTTP side of the registry simulator: distribution-spec 1.1, the reference registry's token authentication."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import secrets
import socket
import struct
import urllib.parse
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from cfs_testkit import faults
from cfs_testkit.registry.content import Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cfs_testkit.registry.content import Registry

_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs|referrers)/(?P<rest>[^?]+)")
_INDEX = "application/vnd.oci.image.index.v1+json"


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server_version = "cfs-testkit"
    disable_nagle_algorithm = True
    _fault: faults.Fault | None = None

    @property
    def registry(self) -> Registry:
        """The registry this connection belongs to."""
        return self.server.registry  # type: ignore[attr-defined,no-any-return]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""

    def handle(self) -> None:
        """Serve until the client goes away."""
        with contextlib.suppress(OSError):
            super().handle()

    # --- requests -----------------------------------------------------------------------------

    def do_GET(self) -> None:
        """Serve content."""
        self._serve()

    def do_HEAD(self) -> None:
        """Serve headers."""
        self._serve()

    def do_POST(self) -> None:
        """Begin an upload, or hand out a token (OAuth 2)."""
        body = self._body()
        if self.path.startswith("/token"):
            self._token(urllib.parse.parse_qs(body.decode()))
            return
        if self._refused():
            return
        match = _PATH.match(self.path)
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if match is None:
            self._answer(404)
            return
        if "mount" in query and (data := self.registry.blobs.get((query.get("from", [""])[0], query["mount"][0]))):
            self.registry.blobs[match["name"], query["mount"][0]] = data
            self._answer(201)
            return
        upload = secrets.token_hex(8)
        self.registry.uploads[upload] = bytearray(body)
        self._answer(202, {"Location": f"/v2/{match['name']}/blobs/uploads/{upload}?state=1"})

    def do_PATCH(self) -> None:
        """Take a part of an upload."""
        body = self._body()
        if self._refused():
            return
        upload = urllib.parse.urlsplit(self.path).path.rsplit("/", 1)[1]
        self.registry.uploads[upload] += body
        self._answer(202, {"Location": self.path, "Range": f"0-{len(self.registry.uploads[upload]) - 1}"})

    def do_PUT(self) -> None:
        """Finish an upload, or take a manifest."""
        body = self._body()
        if self._refused():
            return
        match = _PATH.match(self.path)
        if match is None:
            self._answer(404)
        elif match["kind"] == "manifests":
            tag = None if ":" in match["rest"] else match["rest"]
            digest = self.registry.put_manifest(
                match["name"], body, tag=tag, media_type=self.headers.get("Content-Type", "")
            )
            self._answer(201, {"Docker-Content-Digest": digest})
        else:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            data = bytes(self.registry.uploads.pop(match["rest"].rsplit("/", 1)[1], b"")) + body
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != query["digest"][0]:
                self._answer(400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}')
                return
            self.registry.put_blob(match["name"], data)
            self._answer(201, {"Docker-Content-Digest": query["digest"][0]})

    def _serve(self) -> None:
        if self.path.startswith("/token"):
            self._token({})
            return
        if self._refused():
            return
        found = self._find()
        if isinstance(found, int):
            self._answer(found, body=b'{"errors":[{"code":"UNKNOWN","message":"not here"}]}')
            return
        self._content(*found)

    def _find(self) -> tuple[str | None, bytes, dict[str, str]] | int:
        if self.path.rstrip("/") == "/v2":
            return "application/json", b"{}", {}
        match = _PATH.match(self.path)
        if match is None:
            return 404
        key = (match["name"], match["rest"])
        if match["kind"] == "blobs":
            data = self.registry.blobs.get(key)
            return 404 if data is None else ("application/octet-stream", data, {"Docker-Content-Digest": key[1]})
        if match["kind"] == "manifests":
            manifest = self.registry.manifests.get(key)
            if manifest is None:
                return 404
            digest = f"sha256:{hashlib.sha256(manifest[1]).hexdigest()}"
            return manifest[0], manifest[1], {"Docker-Content-Digest": digest}
        return self._referrers(*key) if self.registry.referrers else 404

    def _referrers(self, name: str, digest: str) -> tuple[str, bytes, dict[str, str]]:
        found: dict[str, dict[str, object]] = {}
        for (repository, _), (media_type, raw) in list(self.registry.manifests.items()):
            parsed: dict[str, Any] = json.loads(raw)
            if repository == name and (parsed.get("subject") or {}).get("digest") == digest:
                own = f"sha256:{hashlib.sha256(raw).hexdigest()}"
                kind = parsed.get("artifactType") or parsed.get("config", {}).get("mediaType")
                found[own] = {"mediaType": media_type, "digest": own, "size": len(raw), "artifactType": kind}
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": list(found.values())}
        return _INDEX, json.dumps(index).encode(), {}

    # --- authentication -----------------------------------------------------------------------

    def _note(self) -> None:
        with self.registry.lock:
            self.registry.seen.append(Seen(self.command, self.path, dict(self.headers)))

    def _refused(self) -> bool:
        """Ask for credentials, or answer with a fault that needs no content; True if that was the answer."""
        self._note()
        return not self._authorized() or self._faulted()

    def _faulted(self) -> bool:
        self._fault = self.registry.next_fault(self.command, self.path)
        match self._fault:
            case faults.Status(code, headers, body, seconds):
                self._answer(code, headers, body, seconds)
            case faults.DripHeaders(seconds):
                self.close_connection = True
                endless = itertools.chain(b"HTTP/1.1 200 OK\r\nX-Padding: ", itertools.repeat(ord("x")))
                self._raw((bytes([each]) for each in endless), seconds)
            case faults.Raw(parts, seconds):
                self.close_connection = True
                self._raw(parts, seconds)
            case faults.Redirect(location, code):
                self._answer(code, {"Location": location})
            case faults.Silence(after=None):
                self._hang()
            case _:
                return False
        return True

    def _authorized(self) -> bool:
        access = self.registry.access
        if access is None:
            return True
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if access.kind != "token" and access.user is not None and kind == "Basic" and self._is_user(value):
            return True
        if access.kind != "basic" and kind == "Bearer":
            with self.registry.lock:
                if self.registry.tokens.get(value, 0) > 0:
                    self.registry.tokens[value] -= 1
                    return True
        name = m["name"] if (m := _PATH.match(self.path)) else ""
        realm = self.registry.url("/token")
        scope = f"repository:{name}:pull" if self.command in ("GET", "HEAD") else f"repository:{name}:pull,push"
        offers = access.headers(f'Bearer realm="{realm}",service="testkit",scope="{scope}"')
        self._answer(401, {"WWW-Authenticate": offers}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        return False

    def _is_user(self, encoded: str) -> bool:
        access = self.registry.access
        return access is not None and base64.b64decode(encoded).decode() == f"{access.user}:{access.password}"

    def _token(self, form: Mapping[str, list[str]]) -> None:
        self._note()
        if self._faulted():
            return
        access = self.registry.access
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        allowed = access is not None and (
            access.user is None
            or (kind == "Basic" and self._is_user(value))
            or (access.identity_token is not None and form.get("refresh_token") == [access.identity_token])
        )
        if not allowed:
            self._answer(401, body=b'{"details":"incorrect username or password"}')
            return
        token = secrets.token_urlsafe(12)
        self.registry.tokens[token] = self.registry.token_uses or 1 << 30
        self._answer(200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode())

    # --- answers ------------------------------------------------------------------------------

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(
        self,
        code: int,
        headers: Mapping[str, str | tuple[str, ...]] | None = None,
        body: bytes = b"",
        drip_seconds: float = 0.0,
    ) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            for each in (value,) if isinstance(value, str) else value:
                self.send_header(name, each)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if drip_seconds:
            self._raw((bytes([each]) for each in body), drip_seconds)
        else:
            self.wfile.write(body)

    def _raw(self, parts: Iterable[bytes], seconds: float) -> None:
        for part in parts:
            self.wfile.write(part)
            if self.registry.closing.wait(seconds):
                return

    def _content(self, kind: str | None, body: bytes, headers: dict[str, str]) -> None:
        fault = self._fault
        if isinstance(fault, faults.ContentType):
            kind, body = fault.value, body if fault.body is None else fault.body
        if isinstance(fault, faults.Header):
            headers[fault.name] = fault.value
        status = 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and "/blobs/" in self.path and not isinstance(fault, faults.IgnoreRange):
            start = 0 if isinstance(fault, faults.WrongRange) else int(asked[1])
            if start >= len(body):
                self._answer(416, {"Content-Range": f"bytes */{len(body)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
        body = _spoiled(body, fault)
        if kind is not None:
            headers["Content-Type"] = kind
        if isinstance(fault, faults.Endless) or (isinstance(fault, faults.Truncate) and fault.chunked):
            headers["Connection"] = "close"
            self.close_connection = True
        else:
            headers["Content-Length"] = str(len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(body, fault)
        if isinstance(fault, faults.Run):
            fault.action()

    def _send(self, body: bytes, fault: faults.Fault | None) -> None:
        match fault:
            case faults.Reset(after):
                self.wfile.write(body[:after])
                # zero linger: closing sends RST, not FIN
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            case faults.Truncate(after):
                self.wfile.write(body[:after])
                self.close_connection = True
            case faults.Silence(after):
                self.wfile.write(body[: after or 0])
                self._hang()
            case faults.Endless(chunk):
                self.wfile.write(body)
                while not self.registry.closing.is_set():
                    self.wfile.write(chunk)
            case faults.Drip(seconds, size):
                self._raw((body[at : at + size] for at in range(0, len(body), size)), seconds)
            case _:
                self.wfile.write(body)

    def _hang(self) -> None:
        self.registry.closing.wait(60)
        self.close_connection = True


def _spoiled(body: bytes, fault: faults.Fault | None) -> bytes:
    match fault:
        case faults.Corrupt(at):
            return body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
        case faults.Extra(data):
            return body + data
        case _:
            return body
