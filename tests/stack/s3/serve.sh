#!/usr/bin/env bash
# s3s-fs on the loopback, haproxy's TLS in front of it.
set -euo pipefail
umask 0077
cat /run/secrets/server.crt /run/secrets/server.key >/run/s3/server.pem
mkdir -p /data/backups
/s3/s3s-fs --host 127.0.0.1 --port 9001 \
  --access-key "$(</run/secrets/backup_s3_key)" --secret-key "$(</run/secrets/backup_s3_secret)" /data &
exec haproxy -f /s3/haproxy.cfg
