"""A web server on loopback that does what a test tells it to."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Files(ThreadingHTTPServer):
    """``files`` by path; ``faults`` by path: functions that are called with the handler, one per request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.faults = {}
        self.ranges = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        pending = self.server.faults.get(self.path, [])
        self.answer(*(pending.pop(0) if pending else ()))

    def answer(self, stop_after=None, status=None, headers=(), ignore_range=False):
        """Answer; break off after some bytes, with another status, with more headers, or as if there were no ranges."""
        data = self.server.files.get(self.path)
        status = status or (404 if data is None else 200)
        data = data or b""
        start = 0
        tag = f'"{hash(data)}"'
        wanted = self.headers.get("Range")
        if status == 200 and wanted and not ignore_range and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206
        self.send_response(status)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        end = len(data) if stop_after is None else start + stop_after
        self.wfile.write(data[start:end])
        if stop_after is not None:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def web_server():
    with Files() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
