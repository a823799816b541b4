"""A server that tells its own state over HTTP: GET /live and GET /ready.

`qam health` asks any server of the id; this says it of the one in this process.
"""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import stock

from qam import QAMServer

server = QAMServer(os.environ["QAM_BROKER_URL"], server_id="stock", wait_for_broker=30)
server.register_module(stock)


class Answer(BaseHTTPRequestHandler):
    """Answers 200 if all is well, and 503 with the reason if not."""

    def do_GET(self) -> None:  # its name is http.server's
        """Answer a probe."""
        health = server.health()
        is_well = {"/live": health.live, "/ready": health.ready}.get(self.path)
        if is_well is None:
            self.send_error(404)
            return
        self.send_response(200 if is_well else 503)
        self.end_headers()
        self.wfile.write(f"{health.reason or 'ok'}\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Do not log each probe."""


probes = ThreadingHTTPServer(("", int(os.environ.get("HEALTH_PORT", "8080"))), Answer)
threading.Thread(target=probes.serve_forever, daemon=True).start()
server.serve(stop_on=[signal.SIGTERM, signal.SIGINT], close_timeout=30)
