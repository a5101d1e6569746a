#!/usr/bin/env bash
# Creates the root folder of a container image: a binary, its shared libraries at the paths where the loader looks for
# them, the CA certificates of this system, an unprivileged user, and a folder for .env.
#
#   src/setup/image.sh BINARY FOLDER
set -euo pipefail
binary=$1 root=$2

install -D --mode 755 "$binary" "$root/tenant-tasks"
# ldd also lists the loader. Each library is installed under the name in the list, which may be a symbolic link here.
ldd "$binary" | grep --only-matching '/[^ ]*' | while read -r library; do
  install -D --mode 755 "$library" "$root$library"
done
install -D --mode 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
printf 'nonroot:x:65532:65532::/config:/sbin/nologin\n' >"$root/etc/passwd"
printf 'nonroot:x:65532:\n' >"$root/etc/group"
install -d --mode 755 --owner 65532 --group 65532 "$root/config"
