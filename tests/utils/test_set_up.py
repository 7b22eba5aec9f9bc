"""The scripts around Python, with stand-ins for interpreters: no network, nothing is installed."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.sounds import ROOT

# Answers as an interpreter does: VERSION fits or not, PIP and TORCH are there or not.
STAND_IN = """#!/bin/sh
case "$*" in
    --version) echo "Python $VERSION" ;;
    *version_info*) case $VERSION in 3.11* | 3.12*) exit 0 ;; *) exit 1 ;; esac ;;
    *find_spec*) [ "$TORCH" = yes ] ;;
    "-m pip --version") [ "$PIP" = yes ] ;;
    *sys.prefix*) echo "$PREFIX" ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; [ "$PIP" = yes ] ;;
    *) echo "$(basename "$(dirname "$(dirname "$0")")") $*" ;;
esac
"""


@pytest.fixture
def place(tmp_path):
    """A repository's scripts, and environments called venv, conda and .venv."""
    (tmp_path / "utils").mkdir()
    for name in ("setup.sh", "environment.sh"):
        shutil.copy(ROOT / "utils" / name, tmp_path / "utils")
    (tmp_path / "requirements.txt").write_text("torch")
    for name in ("venv", "conda", ".venv"):
        stand_in(tmp_path / name / "bin" / "python")
    stand_in(tmp_path / "path" / "python3")
    (tmp_path / "show.sh").write_text(
        f'set -eu\nroot={tmp_path}\n. utils/environment.sh\n"$PYTHON" hi'
    )
    return tmp_path


def stand_in(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN)
    path.chmod(0o755)


def sh(place, script, **variables):
    kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    given = {"VERSION": "3.11.2", "PIP": "yes", "TORCH": "yes", "PREFIX": str(place)} | variables
    path = f"{place / 'path'}:/usr/bin:/bin"
    return subprocess.run(
        ["sh", script],
        cwd=place,
        env={**kept, **given, "PATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("active", "conda", "chosen"),
    [
        ("", None, ".venv"),
        ("", "base", ".venv"),
        ("", "audio", "conda"),
        ("venv", "base", "venv"),
        ("venv", "audio", "venv"),
        ("gone", None, ".venv"),
    ],
)
def test_which_environment_is_used(place, active, conda, chosen):
    variables = {"VIRTUAL_ENV": str(place / active)} if active else {}
    if conda:
        variables |= {"CONDA_PREFIX": str(place / "conda"), "CONDA_DEFAULT_ENV": conda}
    assert sh(place, "show.sh", **variables).stdout == f"{chosen} hi\n"


def test_an_environment_of_another_python_is_named(place):
    for script in ("show.sh", "utils/setup.sh"):
        done = sh(place, script, VIRTUAL_ENV=str(place / "venv"), VERSION="3.9.1")
        assert done.returncode == 2
        assert (
            f"{place}/venv/bin/python is Python 3.9.1; Python 3.11 or 3.12 is needed" in done.stderr
        )


def test_what_is_not_set_up_is_named_with_the_command(place):
    message = f"error: {place}/.venv/bin/python is not set up; to do it, run: sh utils/setup.sh\n"
    assert sh(place, "show.sh", TORCH="no").stderr == message
    shutil.rmtree(place / ".venv")
    done = sh(place, "show.sh")
    assert (done.returncode, done.stderr) == (2, message)


def test_half_an_environment_is_named_with_the_command(place):
    """Debian's python3 without python3-venv makes one, with an error of its own."""
    shutil.rmtree(place / ".venv")
    for made in (False, True):  # by this run, or by the one before
        assert (place / ".venv").exists() == made
        done = sh(place, "utils/setup.sh", PIP="no")
        assert done.returncode == 2
        assert f"error: {place}/.venv/bin/python has no pip; run: sudo apt install" in done.stderr
        assert f"rm -r '{place}/.venv'; sh utils/setup.sh" in done.stderr
    done = sh(place, "utils/setup.sh", PIP="no", VIRTUAL_ENV=str(place / "venv"))
    assert f"has no pip; run: {place}/venv/bin/python -m ensurepip" in done.stderr


def test_set_up_installs_once(place):
    shutil.rmtree(place / ".venv")
    done = sh(place, "utils/setup.sh")
    assert "set-up: making .venv with python3\n" in done.stdout
    assert "-r requirements.txt" in done.stdout
    assert sh(place, "utils/setup.sh").stdout == ""
    (place / "requirements.txt").write_text("torch, numpy")
    assert "-r requirements.txt" in sh(place, "utils/setup.sh").stdout


def test_set_up_tells_files_of_one_name_apart(place):
    (place / "more").mkdir()
    (place / "more" / "requirements.txt").write_text("pytest")
    (place / "both.sh").write_text("sh utils/setup.sh requirements.txt more/requirements.txt")
    done = sh(place, "both.sh")
    assert "-r requirements.txt" in done.stdout
    assert "-r more/requirements.txt" in done.stdout
    assert sh(place, "both.sh").stdout == ""
    assert sh(place, "utils/setup.sh").stdout == ""


def test_the_quickstart_takes_a_tilde_for_the_home(place):
    script = place / "egs/tta/quickstart/run.sh"
    script.parent.mkdir(parents=True)
    for file in ("run.sh", "common.sh"):
        shutil.copy(ROOT / "egs/tta/quickstart" / file, script.with_name(file))
    (place / "go.sh").write_text(f"sh {script} --output_dir=~/made")
    home = place / "home"
    done = sh(place, "go.sh", HOME=str(home))
    assert f"bins/tta/demo.py --output_dir {home}/made\n" in done.stdout
    assert not (place / "~").exists()


def test_no_fitting_python_at_all(place):
    shutil.rmtree(place / ".venv")
    for name in ("python3.12", "python3.11"):
        stand_in(place / "path" / name)
    done = sh(place, "utils/setup.sh", VERSION="3.13.0")
    assert done.returncode == 2
    assert "Python 3.11 or 3.12 is needed and neither" in done.stderr


def test_scripts_pass_on_where_they_were_called_and_utf_8(place, tmp_path):
    (place / ".venv/bin/python").unlink()
    (place / ".venv/bin/python").symlink_to(sys.executable)
    (place / "show.sh").write_text(
        f"set -eu\nroot={place}\n. {place}/utils/environment.sh\n"
        'exec "$PYTHON" -c \'import os, sys; print(sys.flags.utf8_mode, sys.stdout.encoding,'
        ' os.environ["ARION_CALLER_DIR"], os.getcwd())\'\n'
    )
    (place / "sub").mkdir()
    shutil.copy(place / "show.sh", place / "sub")
    done = subprocess.run(
        ["sh", "show.sh"],
        cwd=place / "sub",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "en_US.ISO-8859-1", "PYTHONPATH": site_packages()},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"1 utf-8 {place}/sub {place}\n", done.stderr


def site_packages():
    return next(path for path in sys.path if path.endswith("site-packages"))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_scripts_keep_their_line_ends_where_git_would_change_them(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    script = tmp_path / "run.sh"
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    script.write_bytes(b"#!/bin/sh\nset -eu\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    script.unlink()
    git("checkout", ".")
    assert script.read_bytes() == b"#!/bin/sh\nset -eu\n"
