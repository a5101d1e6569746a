#!/usr/bin/env bash
# Lays out a folder with a binary and all it needs, so that it runs with that folder for a root: its shared libraries
# where the loader looks for them, the certificates this system trusts, a user without rights, and a place for .env.
#
#   src/setup/image.sh BINARY FOLDER
set -euo pipefail
binary=$1 root=$2

install -D --mode 755 "$binary" "$root/tenant-tasks"
# Its libraries, and the loader that looks for them, under the names they are asked for by.
ldd "$binary" | grep --only-matching '/[^ ]*' | while read -r library; do
  install -D --mode 755 "$library" "$root$library"
done
install -D --mode 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
printf 'nonroot:x:65532:65532::/config:/sbin/nologin\n' >"$root/etc/passwd"
printf 'nonroot:x:65532:\n' >"$root/etc/group"
install -d --mode 755 --owner 65532 --group 65532 "$root/config"
