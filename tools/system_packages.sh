#!/usr/bin/env bash
# Install the Debian packages named, where that is possible; never asks for a password.
set -euo pipefail

missing=()
for package in "$@"; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
        missing+=("$package")
    fi
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "No apt-get here: going on without ${missing[*]}." >&2
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "Not root: going on without ${missing[*]} (install: apt-get install ${missing[*]})." >&2
    exit 0
fi

install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1
}
if ! install; then
    "${as_root[@]}" apt-get update -qq >/dev/null 2>&1 || true
    install || echo "Could not install ${missing[*]}: going on without." >&2
fi
