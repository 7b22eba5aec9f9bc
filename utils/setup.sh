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
    for python in python3 python3.12 python3.11 ''; do
        if [ -n "$python" ] && is_supported "$python"; then
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "error: Python 3.11 or 3.12 is needed and neither python3, python3.12 nor python3.11" \
            "is one of them" >&2
        exit 2
    fi
    echo "set-up: making .venv with $python"
    "$python" -m venv "$root/.venv" || [ -x "$PYTHON" ] # without pip, as is said below
fi

for requirements in "$@"; do
    stamp=$("$PYTHON" -c 'import sys; print(sys.prefix)')/arion-$(echo "$requirements" | tr / -)
    if cmp -s "$requirements" "$stamp"; then
        continue
    fi
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        remedy="$PYTHON -m ensurepip"
        if [ "$PYTHON" = "$root/.venv/bin/python" ]; then # Debian makes half an environment
            remedy="sudo apt install python3-venv; rm -r '$root/.venv'"
        fi
        echo "error: $PYTHON has no pip; run: $remedy; sh utils/setup.sh" >&2
        exit 2
    fi
    echo "set-up: installing $requirements (some minutes, once)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    "$PYTHON" utils/free_torchaudio.py
    cp "$requirements" "$stamp"
done
