"""Commands that a message advises, with the settings that the user gave to the one at work."""

from __future__ import annotations

import os
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

SCRIPTS = {  # by what they make: mels, triplets, or a model of a model_type
    "mels": "egs/tta/preprocess/run_preprocess.sh",
    "Edits": "egs/tta/audit/run_preprocess.sh",
    "AutoencoderKL": "egs/tta/autoencoderkl/run_train.sh",
    "AudioLDM": "egs/tta/audioldm/run_train.sh",
    "AUDIT": "egs/tta/audit/run_train.sh",
    "Vocoder": "egs/tta/vocoder/run_train.sh",
    "LoRA": "egs/tta/audioldm/run_train.sh",
}
LORA_CONFIG = "egs/tta/audioldm/exp_config_lora.json"
PAIRS_FILE = "pairs.jsonl"  # in a folder of triplets, and in no other
# Settings that hold whatever is made of the data.
SHARED = r"(dataset|dataset_path|log_dir|preprocess)(\.[\w.-]+)?="


def command(makes: str, *more: str) -> str:
    """What to type, as the user of the command at work would: with its config, data and folders.

    Args:
        makes: a key of `SCRIPTS`.
        more: settings besides, in place of the user's of these keys.
    """
    log_dir, config = _option("log_dir"), _option("config")
    given = [word for word in sys.argv[1:] if re.match(SHARED, word)]
    given += [f"log_dir={log_dir}"] if log_dir else []
    settings = {word.partition("=")[0]: word for word in (*given, *more)}
    if makes == "Edits":
        settings.pop("dataset", None)  # an editor's names the triplets and captioned sounds
    words = ["sh", SCRIPTS[makes]]
    if makes == "LoRA":
        words += ["--config", LORA_CONFIG]
    elif config:
        words += ["--config", config if makes == "mels" else _config_like(config, makes)]
    return shlex.join([*words, *settings.values()])


def remake(place: Path) -> str:
    """What makes anew what lies here, in the folder of a data set: it may be one of triplets."""
    of_edits = any((folder / PAIRS_FILE).is_file() for folder in (place, *place.parents))
    return command("Edits" if of_edits else "mels")


def _option(name: str) -> str | None:
    """The value of the last `--name value` or `--name=value`."""
    found = None
    for word, following in pairwise([*sys.argv[1:], ""]):
        if word.startswith(f"--{name}="):
            found = word.partition("=")[2]
        elif word == f"--{name}":
            found = following
    return found


def _config_like(config: str, makes: str) -> str:
    """The config that goes with the user's: of its name beside the script, or else "FILE".

    Where that is the user's own, of a model that is made of another of its kind, it is its base.
    """
    script, path = Path(SCRIPTS[makes]), Path(config)
    kind = "edits" if makes == "Edits" else script.parent.name
    name = path.name.replace("exp_config", "edits") if makes == "Edits" else path.name
    called_from = os.environ.get("ARION_CALLER_DIR", "")
    users = next((p for p in (Path(called_from, path), path) if p.is_file()), None)
    for found in (script.with_name(name), path.with_name(f"{kind}.json")):
        for place in (found, Path(called_from, found)):
            if place.is_file():
                return (users and place.samefile(users) and _base(place)) or str(found)
    return "FILE"


def _base(config: Path) -> str | None:
    """The config in egs/ that this one builds on, if it does."""
    found = re.search(r'"base_config": "(egs/.+?)"', config.read_text(encoding="utf-8"))
    return found and found[1]
