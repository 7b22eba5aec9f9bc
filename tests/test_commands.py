"""The commands of README.md and of the recipe, read from the pages and run.

The README's way from wavs to sounds is gone in earnest, with tiny models. All other commands run
with a stand-in for Python that checks what they ask for (tests/checked_command.py): their scripts,
options, settings and config files.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from utils.audio import write_wav

FENCED = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:sh|python|\. \.venv/bin/activate;) [^`]+)`")
# What stands in usage lines for a user's own.
PLACEHOLDERS = {
    "FILE": "egs/tta/audioldm/exp_config_small.json",
    "NAME": "try",
    "N": "2",
    "DIR": "made",
    "key.path=value": "train.random_seed=1",
    "...": "",
}
LAUNCHER = {"SLURM_NNODES": "2", "SLURM_NODEID": "0", "HEAD": "10.0.0.1"}

PYTHON = """#!/bin/sh
case "$*" in
    *sys.prefix*) dirname "$(dirname "$0")" ;;
    -c*) exec {real} "$@" ;;
    utils/count_gpus.py) echo 0 ;;
    -m\\ pip* | -m\\ pytest* | utils/free_torchaudio.py) ;;
    *) exec {warm} -m tests.checked_command "$@" ;;
esac
"""


def commands(page: str) -> list[str]:
    """Blocks of commands, and the commands within sentences."""
    text = (tiny.ROOT / page).read_text(encoding="utf-8")
    return FENCED.findall(text) + INLINE.findall(FENCED.sub("", text))


BLOCKS = [(page, block) for page in ("README.md", "egs/tta/README.md") for block in commands(page)]
THE_WAY = next(block for _, block in BLOCKS if "run_inference.sh" in block)


def filled_in(block: str) -> str:
    """[optional] parts are given, the first of a|b is taken, placeholders get a value."""
    block = re.sub(r"\[([^]{}\"']*)\]", lambda part: part[1].split("|")[0], block)
    for name, value in PLACEHOLDERS.items():
        block = re.sub(rf"(?<![\w.=]){re.escape(name)}(?![\w.=])", value, block)
    return block.replace('=/sounds"', '=/my sounds"')  # in quotes, a path may have blanks


def repository(folder: Path, python: str) -> Path:
    """A folder that looks like the repository with its environment; nothing is written to ours."""
    for name in ("egs", "bins", "config", "tests", "utils", "requirements.txt"):
        (folder / name).symlink_to(tiny.ROOT / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").touch()
    texts = {"python": python, "accelerate": '#!/bin/sh\nexec python accelerate "$@"\n'}
    texts |= {"srun": '#!/bin/sh\nexec "$@"\n', "curl": "#!/bin/sh\n"}
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return folder


def run(folder: Path, block: str) -> subprocess.CompletedProcess:
    environment = tiny.environment(PATH=f"{folder}/.venv/bin:/usr/bin:/bin", **LAUNCHER)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "ARION_CALLER_DIR"):
        environment.pop(name, None)
    command = ["sh", "-euc", block]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checking(tmp_path_factory, warm_environment) -> Path:
    text = PYTHON.format(real=sys.executable, warm=warm_environment / "bin" / "python")
    return repository(tmp_path_factory.mktemp("checking"), text)


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[block[:60] for _, block in BLOCKS])
def test_what_a_page_says_can_be_typed(checking, page, block):
    # What the quickstart does is one of tests/bins/test_quickstart.py.
    block = re.sub(r"quickstart/run(_edit)?\.sh", r"\g<0> --help", block)
    done = run(checking, filled_in(block))
    assert done.returncode == 0, done.stderr
    asked = len(
        re.findall(
            r"^[^#\n]*(?:(?<!quickstart/)run_\w+\.sh|studio/run\.sh|bins/tta/\w+\.py)",
            block,
            re.MULTILINE,
        )
    )
    assert done.stdout.count("checked:") == asked


@pytest.mark.parametrize(
    "command",
    [
        "sh egs/tta/audioldm/run_train.sh --exp_nam x",
        "sh egs/tta/audioldm/run_train.sh train.max_step=2",
        "sh egs/tta/audioldm/run_train.sh --config egs/tta/audioldm/exp_config_gone.json",
        "sh egs/tta/audioldm/train.sh",
        "python bins/tta/convert.py import --from nowhere --to x y",
        "accelerate launch --num_machine 2 bins/tta/train.py",
        "arion --help",
    ],
)
def test_what_cannot_be_typed_is_noticed(checking, command):
    assert run(checking, command).returncode != 0


def test_the_way_from_wavs_to_sounds(tmp_path, warm_environment):
    """The README's three commands and the fourth, on eleven sounds of one's own."""
    folder = repository(tmp_path, f'#!/bin/sh\nexec {warm_environment}/bin/python "$@"\n')
    data = folder / "data" / "Tiny"
    (data / "wav").mkdir(parents=True)
    rows = []
    for number in range(11):
        wav = np.random.default_rng(number).normal(0, 0.1, 3000)
        write_wav(data / "wav" / f"{number}.wav", wav, tiny.MEL.sample_rate)
        rows.append(f"{number}.wav,{tiny.WORDS[number % len(tiny.WORDS)]} sounds\n")
    (data / "captions.csv").write_text("file,caption\n" + "".join(rows))
    stages = [tiny.write_config(folder, stage, max_steps=2) for stage in (1, 2)]
    block = THE_WAY.replace("=/data", f"={folder}/data")
    for script, options in (
        ("preprocess/run_preprocess.sh", f"--config {stages[0]} --num_workers 1"),
        ("autoencoderkl/run_train.sh", f"--config {stages[0]}"),
        ("audioldm/run_train.sh", f"--config {stages[1]}"),
        ("audioldm/run_inference.sh", "--log_dir runs"),
    ):
        assert script in block
        block = block.replace(script, f"{script} {options}")
    done = run(folder, block)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "output").iterdir()} == {
        "0000.wav",
        "0000.png",
        "0000.json",
    }
