#!/usr/bin/env bash
# Makes a Debian package of a built pgweir, with nothing but dpkg-deb and objdump: target/pgweir_VERSION_ARCHITECTURE.deb
#
# usage: config/debian/build.sh   PGWEIR_BIN names the program (default target/release/pgweir); prints the package's path
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$HERE/../.."
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
PGWEIR_BIN=${PGWEIR_BIN:-$TARGET_DIR/release/pgweir}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
# The newest version of glibc that the program asks for.
glibc=$(objdump -T "$PGWEIR_BIN" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)

# put MODE SOURCE PATH
put() { install -D -m "$1" "$2" "$tree$3"; }
put 755 "$PGWEIR_BIN" /usr/bin/pgweir
put 644 config/systemd/pgweir.service /usr/lib/systemd/system/pgweir.service
put 644 config/systemd/pgweir.socket /usr/share/doc/pgweir/examples/pgweir.socket
put 644 config/debian/sysusers.conf /usr/lib/sysusers.d/pgweir.conf
put 640 config/pgbouncer.ini /etc/pgweir/pgbouncer.ini
put 644 config/pgweir.toml /usr/share/doc/pgweir/examples/pgweir.toml
put 644 LICENSE /usr/share/doc/pgweir/copyright
put 644 README.md /usr/share/doc/pgweir/README.md
put 644 CHANGELOG.md /usr/share/doc/pgweir/changelog
gzip -9n "$tree/usr/share/doc/pgweir/changelog"
for script in postinst prerm postrm; do put 755 "config/debian/$script" "/DEBIAN/$script"; done
echo /etc/pgweir/pgbouncer.ini >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: pgweir
Version: $version
Architecture: $architecture
Maintainer: pgweir maintainers <maintainers@pgweir.invalid>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: libc6 (>= ${glibc#GLIBC_}), libgcc-s1, adduser | systemd-sysusers
Recommends: ca-certificates
Suggests: libpam0g
Section: database
Priority: optional
Description: connection pooler for PostgreSQL
 pgweir lends few server connections to many clients. It takes the place of
 PgBouncer 1.26: it reads the same pgbouncer.ini, speaks the same console,
 writes the same log lines and heeds the same signals, and uses all cores with
 one shared pool.
CONTROL
package=$TARGET_DIR/pgweir_${version}_$architecture.deb
chmod 755 "$tree"
dpkg-deb --build --root-owner-group "$tree" "$package" >/dev/null
echo "$package"
