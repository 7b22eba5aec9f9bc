"""HiFi-GAN's published code: a generator's config.json and g_XXXXXXXX."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from config.schema import Config
from models.tta.convert.imported import Imported
from models.vocoders.hifigan import HiFiGAN
from utils.errors import UserError


def read_hifigan(files: list[Path], config: Config) -> Imported:
    """The vocoder in a folder, or in a config.json and a g_XXXXXXXX that are given one by one."""
    with tempfile.TemporaryDirectory() as together:
        folder = files[0]
        if len(files) > 1 or not folder.is_dir():
            folder = Path(together)
            for file in files:
                if not file.is_file():
                    raise UserError(f"{file}: no such file; config.json and g_XXXXXXXX are wanted")
                name = "config.json" if file.suffix == ".json" else "g_00000000"
                shutil.copyfile(file, folder / name)
        found = Imported(config, vocoder=HiFiGAN(folder))
        found.take_mel(found.vocoder.mel, folder)
        return found
