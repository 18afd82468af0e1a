"""A web server for a folder, on this machine: with ranges or without, and with faults on demand.

with FileServer(folder) as server:
    server.url              http://127.0.0.1:PORT/
    server.asked            every request: (path, first byte, last byte or -1), in order
    server.sent             bytes by path
    server.faults[path]     what goes wrong with the next requests of a path: statuses, "cut", "silent", "trickle"
        server.headers          of the newest request
"""

from __future__ import annotations

import collections
import hashlib
import http.server
import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class FileServer:
    def __init__(self, folder: Path, *, ranges: bool = True, tags: bool = True) -> None:
        self.folder, self.ranges, self.tags = folder, ranges, tags
        self.asked: list[tuple[str, int, int]] = []
        self.sent: collections.Counter[str] = collections.Counter()
        self.faults: dict[str, list[Any]] = {}
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.ends = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    @property
    def paths(self) -> set[str]:
        return {path for path, _, _ in self.asked}

    def clear(self) -> None:
        self.asked.clear()
        self.sent.clear()

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        self._server.shutdown()
        self._server.server_close()


def _handler_of(server: FileServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).lstrip("/")
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, last = (int(asked[1]), int(asked[2])) if asked else (0, -1)
            server.asked.append((path, first, last))
            server.headers = dict(self.headers.items())
            faults = server.faults.get(path, [])
            fault = faults.pop(0) if faults else None
            if path in server.redirects:
                self._answer(302, {"Location": server.redirects[path], "Content-Length": "0"})
            elif isinstance(fault, int):
                self._answer(fault, {"Content-Length": "0"})
            elif fault == "silent":
                server.ends.wait(20)
                self.close_connection = True
            elif not (server.folder / path).is_file():
                self._answer(404, {"Content-Length": "0"})
            else:
                self._file(path, first, last, fault)

        def _answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _file(self, path: str, first: int, last: int, fault: Any) -> None:
            content = (server.folder / path).read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
            headers = {"ETag": tag} if server.tags else {}
            if last >= 0 and server.ranges:
                if first >= len(content):
                    self._answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                    return
                last = min(last, len(content) - 1)
                part = content[first : last + 1]
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                self._answer(206, headers | {"Content-Length": str(len(part))})
            else:
                part = content
                self._answer(200, headers | {"Content-Length": str(len(part))})
            if fault in ("cut", "trickle"):
                self.wfile.write(part[: len(part) // 2])
                self.wfile.flush()
                if fault == "trickle":
                    server.ends.wait(20)
                self.close_connection = True
                self.connection.shutdown(2)
                return
            server.sent[path] += len(part)  # before the last byte: whoever has that may look at once
            try:
                self.wfile.write(part)
            except OSError:  # whoever asked has seen enough
                server.sent[path] -= len(part)
                self.close_connection = True

    return Handler


def wait_until(is_so: Any, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)


__all__ = ["FileServer", "wait_until"]
