#!/usr/bin/env python3
"""Serves what the files METRICS_DIR/*.values say as one page of metrics, at :9188/metrics; with --print, writes it to standard output."""
import glob
import http.server
import os
import sys

METRICS_DIR = os.environ.get("METRICS_DIR", "/var/lib/backup-metrics")
PORT = 9188
HELP = {
    "backup_last_success_timestamp_seconds": ("gauge", "When the last good backup ended."),
    "backup_last_duration_seconds": ("gauge", "What the last good backup took."),
    "backup_last_size_bytes": ("gauge", "What the last good backup takes in the bucket."),
    "backup_last_result": ("gauge", "Whether the last backup succeeded."),
    "backup_failures_total": ("counter", "Backups that failed."),
    "backup_restore_test_last_success_timestamp_seconds": ("gauge", "When a test of a restore last succeeded."),
    "backup_restore_test_last_duration_seconds": ("gauge", "What the last good test of a restore took."),
    "backup_restore_test_last_result": ("gauge", "Whether the last test of a restore succeeded."),
    "postgres_tls_certificate_expiry_timestamp_seconds": ("gauge", "When PostgreSQL's certificate expires."),
}


def page():
    lines = []
    for name in glob.glob(os.path.join(METRICS_DIR, "*.values")):
        with open(name, encoding="utf-8") as file:
            lines += file.read().splitlines()
    text = ""
    for metric, (kind, what) in HELP.items():
        own = sorted(line for line in lines if line.startswith(metric + "{"))
        if own:
            text += f"# HELP {metric} {what}\n# TYPE {metric} {kind}\n" + "\n".join(own) + "\n"
    return text


class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/metrics":
            self.send_error(404)
            return
        body = page().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if sys.argv[1:] == ["--print"]:
    sys.stdout.write(page())
else:
    http.server.ThreadingHTTPServer(("", PORT), Metrics).serve_forever()
