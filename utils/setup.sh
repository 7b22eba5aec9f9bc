#!/bin/sh
# Makes the environment that every other script uses: sh utils/setup.sh [requirements file ...]
#
# In an active virtual environment it installs there, else into .venv in the repository. What is
# installed already is not looked at again until a requirements file changes.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
[ "$#" -gt 0 ] || set -- requirements.txt
arion_setting_up=yes
. "$root/utils/environment.sh"

if ! [ -x "$PYTHON" ]; then
    for python in python3 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
            2>/dev/null; then
            break
        fi
        python=
    done
    if [ -z "$python" ]; then
        echo "error: Python 3.11 or 3.12 is needed and neither python3, python3.12 nor python3.11" \
            "is one of them" >&2
        exit 2
    fi
    echo "set-up: making .venv with $python"
    "$python" -m venv "$root/.venv"
fi

for requirements in "$@"; do
    stamp=$("$PYTHON" -c 'import sys; print(sys.prefix)')/arion-$(basename "$requirements")
    if cmp -s "$requirements" "$stamp"; then
        continue
    fi
    echo "set-up: installing $requirements (some minutes, once)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    "$PYTHON" utils/free_torchaudio.py
    cp "$requirements" "$stamp"
done
