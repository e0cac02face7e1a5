#!/usr/bin/env python3
"""Serves the files METRICS_DIR/*.prom as one, at :9188/metrics, and nothing else."""
import glob
import http.server
import os

METRICS_DIR = os.environ.get("METRICS_DIR", "/var/lib/backup-metrics")
PORT = 9188


class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/metrics":
            self.send_error(404)
            return
        text = b""
        for name in sorted(glob.glob(os.path.join(METRICS_DIR, "*.prom"))):
            with open(name, "rb") as file:
                text += file.read()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", PORT), Metrics).serve_forever()
