#!/usr/bin/env bash
# Make the virtual environment $1 (if need be) and install phasezoo with the extras $2 into it.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
extras=$2

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ ! -x "$venv/bin/python" ]; then
    python=""
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if recent "$name"; then
            python=$name
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "phasezoo needs Python 3.11 or later, and found none." >&2
        echo "Install one (Debian: apt-get install python3 python3-venv), or name it:" >&2
        echo "    make PYTHON=/path/to/python3.12 demo" >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        tools/system_packages.sh python3-venv || true
    fi
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "$python cannot make a virtual environment." >&2
        echo "On Debian and Ubuntu: apt-get install python3-venv, then run make again." >&2
        exit 1
    fi
fi

if ! recent "$venv/bin/python"; then
    echo "$venv holds a Python older than 3.11: remove it (make distclean) and run make again." >&2
    exit 1
fi

echo "Installing phasezoo and what it needs into $venv; the first time this takes some minutes."
# shellcheck disable=SC2086  # PIP_FLAGS is a list of words
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt ${PIP_FLAGS:-} --editable ".[$extras]"

# Rivals in tests, whose own dependencies are in the extra: they name torchvision, do not import it,
# and its wheels do not load beside a CPU-only torch.
if [[ ",$extras," == *,test,* ]]; then
    # shellcheck disable=SC2086
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --constraint constraints.txt ${PIP_FLAGS:-} curvlinops-for-pytorch backpack-for-pytorch
fi
