# Sourced by every script: goes to the repository's root and sets PYTHON, the interpreter to use.
# The active environment comes first, then the .venv that set-up made.
# A script sets `root` before it sources this file.

cd "$root"
if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
    PYTHON=$VIRTUAL_ENV/bin/python
elif [ -n "${CONDA_PREFIX:-}" ] && [ -x "$CONDA_PREFIX/bin/python" ]; then
    PYTHON=$CONDA_PREFIX/bin/python
else
    PYTHON=$root/.venv/bin/python
fi
if [ -z "${arion_setting_up:-}" ] && ! [ -x "$PYTHON" ]; then
    echo "error: there is no environment yet; make it with: sh utils/setup.sh" >&2
    exit 2
fi
export PYTHON
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONIOENCODING=utf-8
