# Sourced by every script: goes to the repository's root and sets PYTHON, the interpreter to use.
# A script sets `root` before it sources this file.
#
# An active virtual environment comes first, then an active conda environment other than base (which
# is active everywhere, not chosen for this), then the .venv that set-up made.

export ARION_CALLER_DIR="${ARION_CALLER_DIR:-$(pwd)}" # where relative paths of the user start
cd "$root"
if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
    PYTHON=$VIRTUAL_ENV/bin/python
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ] &&
    [ -x "$CONDA_PREFIX/bin/python" ]; then
    PYTHON=$CONDA_PREFIX/bin/python
else
    PYTHON=$root/.venv/bin/python
fi
export PYTHON
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUTF8=1 # names of files, prompts and output are UTF-8 whatever the locale says

is_supported() { # PYTHON: whether it is a version that the requirements are pinned for
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

if [ -x "$PYTHON" ] && ! is_supported "$PYTHON"; then
    echo "error: $PYTHON is $("$PYTHON" --version 2>&1); Python 3.11 or 3.12 is needed. Leave that" \
        "environment (deactivate) or remove it, then: sh utils/setup.sh" >&2
    exit 2
fi
if [ -z "${arion_setting_up:-}" ] &&
    ! "$PYTHON" -c 'import sys, importlib.util as u; sys.exit(not u.find_spec("torch"))' 2>/dev/null
then
    echo "error: $PYTHON is not set up; to do it, run: sh utils/setup.sh" >&2
    exit 2
fi
