#!/bin/sh
# Gathers what a program needs to run into a folder that becomes an image: the program, the libraries it is linked with, the
# certificates of authorities, users, and empty folders; for each package that something came from, its entry in dpkg's
# list (where scanners look) and its licence.
#
# usage: gather FOLDER PROGRAM ID    ID: of the user and group pgweir
set -eu
folder=$1
program=$2
id=$3

# take PATH...: copies files, following links, to the same place in the folder.
take() {
  for path in "$@"; do
    mkdir -p "$folder$(dirname "$path")"
    cp -L "$path" "$folder$path"
  done
}

# The package that owns a path; Debian's list may know it without the /usr before it.
owner() {
  { dpkg-query -S "$1" || dpkg-query -S "$(readlink -f "$1")" || dpkg-query -S "${1#/usr}"; } 2>/dev/null | grep -v "^diversion" | cut -d: -f1 | head -n 1
}

libraries=$(ldd "$program" | sed -nE 's/.* => (\/[^ ]+) .*/\1/p; s/^[[:space:]]*(\/[^ ]+) .*/\1/p' | sort -u)
take "$program"
# shellcheck disable=SC2086  # a list of paths without blanks
take $libraries
take /etc/ssl/certs/ca-certificates.crt /etc/os-release
printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' >"$folder/etc/nsswitch.conf"
{
  grep -E '^(root|nobody):' /etc/passwd
  echo "pgweir:x:$id:$id:pgweir:/nonexistent:/usr/sbin/nologin"
} >"$folder/etc/passwd"
{
  grep -E '^(root|nogroup):' /etc/group
  echo "pgweir:x:$id:"
} >"$folder/etc/group"
mkdir -p "$folder/etc/pgweir" "$folder/var/lib/dpkg/status.d"
install -d -m 1777 "$folder/tmp"

packages=$(for path in $libraries; do owner "$path"; done | sort -u)
for package in $packages ca-certificates; do
  dpkg-query -s "$package" >"$folder/var/lib/dpkg/status.d/$package"
  if [ -e "/usr/share/doc/$package/copyright" ]; then take "/usr/share/doc/$package/copyright"; fi
done
