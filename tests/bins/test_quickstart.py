"""The README's first command, end to end, with little of everything."""

import csv
import json
import subprocess
import sys

import pytest

from tests import tiny

SCRIPT = tiny.ROOT / "egs/tta/quickstart/run.sh"
LITTLE = ["--clips_per_kind", "10", "--prompts_per_kind=1", "--num_steps", "2"]
# Two steps of each stage, and nothing on the way but what comes at the end.
SHORT = ["train.max_steps=2", "train.batch_size=4", "train.valid_clips=4"]
SHORT += ["train.sample_interval=99"]


def quickstart(cwd, *arguments):
    return subprocess.run(
        ["sh", SCRIPT, *arguments],
        cwd=cwd,
        env=tiny.environment(VIRTUAL_ENV=sys.prefix),
        capture_output=True,
        text=True,
    )


def test_sounds_from_nothing(tmp_path):
    done = quickstart(tmp_path, *LITTLE, "--output_dir", "my first", *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 10 sounds recognised as what was asked for" in done.stdout
    folder = tmp_path / "my first"
    assert [path.name for path in tmp_path.iterdir()] == ["my first"]
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert all(f"{number:04d}.wav" in page for number in range(10))
    with (folder / "recognised.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == (folder / "prompts.txt").read_text().splitlines()
    stages = [path.name[2:] for path in sorted((folder / "seconds").iterdir())]
    assert stages.pop() == "listening", "whose time is known only after the page is written"
    assert len(stages) == 5
    assert all(f'<th scope="row">{stage}</th>' in page for stage in stages)
    receipt = json.loads((folder / "sounds" / "0009.json").read_text())
    assert receipt["num_steps"] == 2
    for run in ("quickstart_autoencoderkl", "quickstart_audioldm"):
        config = json.loads((folder / "runs" / run / "final" / "config.json").read_text())
        assert (config["train"]["max_steps"], config["made_with"]["step"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output"], "error: --output: no such option; see: sh egs/tta/quickstart/run.sh --help"),
        (["train.max_steps=2", "--num_steps"], "error: --num_steps needs a value"),
        (["--clips_per_kind=3"], "error: --clips_per_kind 3 must be from 10 to 1000"),
    ],
)
def test_options_that_cannot_be(tmp_path, arguments, message):
    done = quickstart(tmp_path, "--output_dir=x", *arguments)
    assert (done.returncode, done.stderr.strip()) == (2, message)


def test_help_names_every_option(tmp_path):
    text = quickstart(tmp_path, "--help").stdout
    for option in ("--output_dir", "--clips_per_kind", "--prompts_per_kind", "--num_steps"):
        assert option in text
