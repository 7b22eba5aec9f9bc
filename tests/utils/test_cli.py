import errno
import subprocess
import sys

import pytest

from tests.sounds import ROOT
from utils.cli import add_config_arguments, new_parser, parse_arguments, run_main
from utils.errors import UserError


def parse(*arguments):
    parser = new_parser("")
    add_config_arguments(parser, "default.json")
    parser.add_argument("--exp_name")
    return parse_arguments(parser, arguments)


def test_overrides_stand_anywhere():
    arguments = parse("a.b=1", "--exp_name", "try", "c=2", "--config", "mine.json", "d=-3")
    assert arguments.overrides == ["a.b=1", "c=2", "d=-3"]
    assert (arguments.exp_name, arguments.config) == ("try", "mine.json")
    assert parse().config == "default.json"


def test_home_is_meant_by_a_tilde_wherever_a_path_begins(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    arguments = parse("a.b=~/data", "--exp_name=~/x", "c=a~b", "d=~ada/x", "e= ~/x", "--config=~")
    assert arguments.overrides == ["a.b=/home/ada/data", "c=a~b", "d=~ada/x", "e= ~/x"]
    assert (arguments.config, arguments.exp_name) == ("/home/ada", "/home/ada/x")


@pytest.mark.parametrize("arguments", [["--unknown"], ["--exp", "x"], ["--exp_name"]])
def test_unknown_flags_end_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--log_dir", "/r"], "--log_dir; a setting has no dashes here, log_dir=VALUE"),
        (["--train.max_steps=3"], "; a setting has no dashes here, train.max_steps=3"),
        (["--exp_nam", "x"], "--exp_nam; nearest: --exp_name"),
        (["exp_name=x"], "exp_name=x; here it is an option, --exp_name x"),
        (["a.b=1", "config=mine.json"], "; here it is an option, --config mine.json"),
    ],
)
def test_options_and_settings_that_are_taken_for_each_other(typed, said, capsys):
    with pytest.raises(SystemExit):
        parse(*typed)
    assert capsys.readouterr().err.endswith(f"{said}\n")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["log_dir=/r"], "; here it is an option, --log_dir /r"),
        (["--text", "a", "dog"], "arguments: dog; a value with blanks has to be in quotes"),
        (["--log-dir", "/r"], "; nearest: --log_dir"),
        (["log_dri=/r"], "; nearest: --log_dir"),
        (["--zzz"], "arguments: --zzz"),
    ],
)
def test_a_command_without_settings_names_its_options(typed, said, capsys):
    parser = new_parser("")
    for option in ("--text", "--log_dir"):
        parser.add_argument(option)
    with pytest.raises(SystemExit):
        parser.parse_args(typed)
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)


def test_the_options_of_verbs_are_known_as_well(capsys):
    parser = new_parser("")
    parser.add_subparsers().add_parser("export").add_argument("--vocoder")
    with pytest.raises(SystemExit):
        parser.parse_args(["export", "--vocodr=x"])
    assert capsys.readouterr().err.endswith("--vocodr=x; nearest: --vocoder\n")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("no such thing; run: sh x"), 2, "error: no such thing; run: sh x\n"),
        (OSError(errno.ENOSPC, "No space left", "a/b"), 2, "error: a/b: No space left\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_of_the_user_are_one_line(error, status, message, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == message


def test_errors_of_ours_keep_their_traceback():
    def main():
        raise FileNotFoundError(errno.ENOENT, "ours")

    with pytest.raises(FileNotFoundError):
        run_main(main)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [2, 100_000])
def test_output_that_nobody_reads_ends_the_program_quietly(lines, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    program = (
        "from utils.cli import run_main\n"
        f"run_main(lambda: [print('line', n) for n in range({lines})])\n"
    )
    shell = f"{{ sleep 0.2; '{sys.executable}' -c \"{program}\"; echo $? >&2; }} | true"
    done = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "141\n"


def test_a_pipe_of_ours_that_breaks_keeps_its_traceback():
    def main():
        raise BrokenPipeError(errno.EPIPE, "a worker's")

    with pytest.raises(BrokenPipeError):
        run_main(main)


def test_help_imports_nothing_heavy():
    """`--help` within 1.5 s: torch and librosa alone would take longer."""
    program = (
        "import sys; sys.argv = ['preprocess.py', '--help']\n"
        "import runpy\n"
        "try: runpy.run_path('bins/tta/preprocess.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'librosa', 'scipy', 'transformers', 'soundfile'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--num_workers" in run.stdout
