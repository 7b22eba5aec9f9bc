"""Published weights in, ours out; and a whole model of one with its adapters.

    python bins/tta/convert.py import --from amphion --to DIR vae.pt audioldm.pt
    python bins/tta/convert.py import --from hifigan --to DIR config.json g_02500000
    python bins/tta/convert.py import --from diffusers --to DIR cvssp/audioldm2/vae
    python bins/tta/convert.py import --from audioldm --to DIR audioldm.ckpt
    python bins/tta/convert.py export --to diffusers --checkpoint_path RUN DIR
    python bins/tta/convert.py merge --lora RUN DIR

An import makes a folder that every command takes where it takes one of ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import new_parser, run_main, with_home
from utils.errors import UserError

if TYPE_CHECKING:
    from models.tta.convert.imported import Imported
    from models.tta.ldm.pipeline import PipelineSettings
    from models.vocoders.hifigan import HiFiGAN

FORMATS = ("amphion", "hifigan", "diffusers", "audioldm")
OWN_CONFIG = "egs/tta/audioldm/exp_config.json"
AUDIOLDM_CONFIG = "egs/tta/audioldm/exp_config_audioldm_vae.json"


def main() -> None:
    arguments = parse()
    from transformers.utils import logging

    logging.disable_progress_bar()  # one for every file that it reads or writes
    verbs = {"import": import_weights, "export": export_model, "merge": merge_adapters}
    verbs[arguments.verb](arguments)


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    come = verbs.add_parser("import", help="published weights to a folder of ours")
    come.add_argument("--from", dest="format", required=True, choices=FORMATS)
    come.add_argument("--to", required=True, metavar="DIR", help="the folder to make")
    come.add_argument("files", nargs="+", metavar="FILE", help="files or folders of one model")
    come.add_argument(
        "--config",
        help="AudioLDM config for what the files do not tell, such as the mel; default:"
        f" {OWN_CONFIG}, for diffusers and audioldm {AUDIOLDM_CONFIG}",
    )
    come.add_argument("--num_heads", type=int, help="of an Amphion U-Net; default: the config's")
    come.add_argument(
        "--layout",
        choices=("time_mel", "mel_time"),
        help="of the maps that a diffusers network works on; default: time_mel, as AudioLDM's are,"
        " or what a mel_config.json beside the weights says",
    )
    come.add_argument("--vae", metavar="DIR", help="a VAE of ours, to go with a U-Net")
    come.add_argument(
        "--text_encoder",
        metavar="NAME",
        help="likewise: a T5 (hub or folder), or the CLAP of an AudioLDM",
    )

    go = verbs.add_parser("export", help="a trained model to a folder of another format")
    go.add_argument("--to", dest="format", required=True, choices=("diffusers",))
    go.add_argument("--checkpoint_path", help="stage-2 run; default: the newest")
    go.add_argument("--log_dir", default="ckpts/tta", help="where runs are looked for")
    go.add_argument(
        "--vocoder", help="griffin_lim, or a vocoder's folder; default: as for inference"
    )
    go.add_argument("--license", default="other", help="of the weights, as mit or cc-by-4.0")
    go.add_argument("--push_to_hub", metavar="NAME", help="upload it as this model, owner/name")
    go.add_argument("out", metavar="OUT_DIR", help="the folder to make")

    join = verbs.add_parser("merge", help="a model and adapters (LoRA) to one model")
    join.add_argument(
        "--lora",
        required=True,
        action="append",
        metavar="RUN[:WEIGHT]",
        help="adapters, 1 times by default; may be given again",
    )
    join.add_argument("--checkpoint_path", help="their base; default: what they were trained on")
    join.add_argument("out", metavar="OUT_DIR", help="the folder to make")
    return parser.parse_args([with_home(word) for word in sys.argv[1:]])


def new_folder(option: str, name: str) -> Path:
    """A path that is still free."""
    path = Path(name)
    if path.exists():
        raise UserError(f"{option} {path} exists; nothing is overwritten, choose another folder")
    return path


def import_weights(arguments: argparse.Namespace) -> None:
    """Reads the files, adds what the options name, writes the folder, says how to use it."""
    to = new_folder("--to", arguments.to)
    found = read_files(arguments)
    if arguments.vae is not None:
        from models.tta.autoencoder.saved import load_vae
        from utils.run_folder import find_weights

        folder = find_weights(arguments.vae, "", "AutoencoderKL")
        saved = load_vae(folder)
        found.take_mel(saved.mel, folder)
        found.add("vae", saved.vae, folder)
    if arguments.text_encoder is not None and found.text_encoder is None:
        from models.tta.ldm.pipeline import text_encoder_class

        kind, limit = text_encoder_class(found.settings.unet), found.settings.max_tokens
        encoder = kind.from_pretrained(arguments.text_encoder, limit)
        found.add("text_encoder", encoder, Path(arguments.text_encoder))
    found.check()
    print("\n".join(found.write(to, arguments.format)))


def read_files(arguments: argparse.Namespace) -> Imported:
    """The parts that the files hold."""
    from models.tta.convert.from_diffusers import read_diffusers
    from models.tta.convert.imported import Imported
    from models.tta.convert.latent_diffusion import read_amphion, read_audioldm
    from utils.hub import SAFE, model_folder

    patterns = (*SAFE, "*.bin", "g_*", "generator_*")
    files = [model_folder(name, patterns) for name in arguments.files]
    defaults = read_defaults(arguments)
    if arguments.format == "amphion":
        return read_amphion(files, defaults)
    if arguments.format == "audioldm":
        return read_audioldm(files, defaults, arguments.text_encoder)
    if arguments.format == "diffusers":
        return read_diffusers(files, defaults, arguments.layout)
    vocoder = read_hifigan(files)
    return Imported(dataclasses.replace(defaults, mel=vocoder.mel), vocoder=vocoder)


def read_defaults(arguments: argparse.Namespace) -> PipelineSettings:
    """What the files may not tell, from a config of stage 2."""
    from config.load import load_config
    from models.tta.ldm.pipeline import PipelineSettings

    with_audioldm = arguments.format in ("diffusers", "audioldm")
    path = arguments.config or (AUDIOLDM_CONFIG if with_audioldm else OWN_CONFIG)
    heads = arguments.num_heads
    config = load_config(path, [] if heads is None else [f"model.audioldm.num_heads={heads}"])
    if config.model_type != "AudioLDM":
        raise UserError(f"--config {path} must be of model_type AudioLDM, not {config.model_type}")
    return PipelineSettings.of(config)


def read_hifigan(files: list[Path]) -> HiFiGAN:
    """The vocoder in a folder, or in a config.json and a checkpoint that are given one by one."""
    from models.vocoders.hifigan import find_published, read_published

    if len(files) == 2:
        return read_published(*sorted(files, key=lambda file: file.suffix != ".json"))
    if len(files) > 2 or not files[0].is_dir():
        raise UserError(
            f"{files[0]}: a HiFi-GAN is a folder, or its config.json and its g_XXXXXXXX (or"
            " generator_vX)"
        )
    return read_published(files[0] / "config.json", find_published(files[0]))


def export_model(arguments: argparse.Namespace) -> None:
    """Writes the folder, and uploads it where that is asked for."""
    out = new_folder("OUT_DIR", arguments.out)
    from models.tta.convert.model_card import model_card
    from models.tta.convert.to_diffusers import export
    from models.tta.ldm.pipeline import read_pipeline
    from models.vocoders.load import GRIFFIN_LIM, load_vocoder, newest_vocoder
    from utils.hub import push
    from utils.run_folder import find_weights

    folder = find_weights(arguments.checkpoint_path, arguments.log_dir, "AudioLDM")
    pipeline = read_pipeline(folder)
    name = arguments.vocoder or pipeline.settings.vocoder_of(folder)
    if arguments.vocoder is None and name == GRIFFIN_LIM:  # as inference does
        name = newest_vocoder(arguments.log_dir, pipeline.settings.mel)
    print(f"model: {folder}\nvocoder: {name}")
    vocoder = load_vocoder(name, pipeline.settings.mel)
    title = arguments.push_to_hub or out.name
    export(pipeline, vocoder, model_card(pipeline, folder, title, arguments.license, vocoder), out)
    print(f"{out}: DiffusionPipeline.from_pretrained loads it, see {out / 'README.md'}")
    if arguments.push_to_hub:
        print(push(out, arguments.push_to_hub))


def merge_adapters(arguments: argparse.Namespace) -> None:
    """Writes a folder like a run's final/, in which the weights are those with the adapters."""
    out = new_folder("OUT_DIR", arguments.out)
    from models.tta.convert.merged import write_merged
    from models.tta.ldm.lora import base_of, find_adapters
    from utils.run_folder import find_weights

    adapters = find_adapters(arguments.lora)
    kind, base = adapters[0].settings.adapts, base_of(adapters, arguments.checkpoint_path)
    write_merged(out, find_weights(base, "", kind), adapters)
    command = {"AudioLDM": "audioldm/run_inference.sh", "AUDIT": "audit/run_edit.sh"}[kind]
    print(f"{out}: sh egs/tta/{command} --checkpoint_path {shlex.quote(str(out))}")


if __name__ == "__main__":
    run_main(main)
