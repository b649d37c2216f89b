"""Serves a live page on loopback: the page at /, and its state at /state.json."""

import logging
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from sah.errors import SahError
from sah.report.html.live import LivePage
from sah.terminal import plain

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
# Any port: that of an ssh tunnel may be another one.
_LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class PageServer(ThreadingHTTPServer):
    """A server of one page, for browsers on this machine."""

    daemon_threads = True

    def __init__(self, page: LivePage, port: int = 0) -> None:
        """Open the port; `serve_forever` serves.

        Args:
            page: what to serve.
            port: 0 for a free one.

        Raises:
            SahError: if the port cannot be opened.
        """
        self.page = page
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            raise SahError(
                f"port {port} cannot be opened: {error.strerror}; choose another --port, or leave "
                "it out for a free one"
            ) from error

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{_LOOPBACK}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error in a request; the server goes on."""
        # A browser may leave before it has read the answer.
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            logger.exception("a request was not answered")


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "sah"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        status, kind, content = self._answer()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        host = self.headers.get("Host", "")
        # Another site may have a name that leads here (DNS rebinding), so that its scripts could
        # read the answers; the browser still sends that name.
        if not _LOCAL_HOST.fullmatch(host):
            refusal = f"Host {plain(host)!r} is not this machine; open {self.server.address}\n"
            return HTTPStatus.FORBIDDEN, "text/plain", refusal.encode()
        if self.path == "/":
            return HTTPStatus.OK, "text/html", self.server.page.content().encode()
        if self.path == "/state.json":
            return HTTPStatus.OK, "application/json", orjson.dumps(self.server.page.state())
        missing = f"nothing is at this address; the page is at {self.server.address}\n"
        return HTTPStatus.NOT_FOUND, "text/plain", missing.encode()

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
