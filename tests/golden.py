"""Real runs beside tests/reference.py: the one place that knows where parts and weights lie."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.ldm.unet import UNet
from modules.discriminator import PatchDiscriminator
from processors.stream import ClipStream
from tests import tiny, warm
from tests.compare import scalars
from tests.reference import Stage1, Stage2, Text
from tests.reference_flow_map import FlowMap

TRAIN = {
    "valid_interval": 1000,
    "save_summary_steps": 1,
    "warmup_steps": 0,
    # Gradients of this size: a loss that is twice as large makes another step.
    "adam": {"lr": 1e-2, "betas": [0.8, 0.95], "eps": 1e-2, "weight_decay": 0.1},
    "grad_clip": 1e6,
}
STILL = ("train.adam.lr=1e-30", "train.max_steps=1", "train.save_checkpoints_steps=1")
FLOW_MAP = (
    "model.noise_scheduler.prediction_type=flow_prediction",
    "model.audioldm.span_embedding=true",
    'model.flow_map={"guidance_scale": null, "jump_every": 2}',
    "inference.sampler=euler",
    "inference.guidance_scale=1",
)
STARTED = "still"  # a run of that name holds the weights that training begins with


def write_place(root: Path) -> None:
    """Data (long and short clips, several captions of some) and configs of all models."""
    folder = tiny.write_data(root)
    records = json.loads((folder / "train.json").read_text())
    more = [{**record, "Caption": f"{record['Caption']} twice"} for record in records[2:5]]
    (folder / "train.json").write_text(json.dumps(records + more))
    for stage in tiny.MODELS:
        tiny.write_config(root, stage, **TRAIN)


def train(root: Path, stage: int, name: str, *changes: str) -> Path:
    """A real run up to its end; its folder."""
    log, run = root / f"{name}.log", root / "runs" / name
    status = warm.run(log, "--config", f"{root}/stage{stage}.json", "--exp_name", name, *changes)
    assert status == 0, log.read_text()
    return run


def config_of(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def data_of(config: dict) -> tuple[list[np.ndarray], list[tuple[int, str]]]:
    """The mel of every training clip, and (clip, caption) of every record."""
    folder = Path(config["preprocess"]["processed_dir"]) / config["dataset"][0]
    records = json.loads((folder / "train.json").read_text())
    names = list(dict.fromkeys(record["Uid"] for record in records))
    mels = [np.load(folder / "mel" / f"{name}.npy") for name in names]
    return mels, [(names.index(record["Uid"]), record["Caption"]) for record in records]


def assert_reached(
    found: dict[str, torch.Tensor],
    expected: dict[str, torch.Tensor],
    began: dict[str, torch.Tensor],
) -> None:
    """Each tensor went from `began` to where it is expected, up to a thousandth of the way.

    What rounding may add to no way at all is a ten-thousandth of a step.
    """
    faults = []
    for name, goal in expected.items():
        way = (goal - began[name]).abs().max().item()
        missed = (found[name] - goal).abs().max().item()
        if not missed <= 1e-3 * way + 1e-6:
            faults.append(f"{name}: {missed:.3g} off after a way of {way:.3g}")
    assert not faults, "\n".join(faults)


def assert_curves(run: Path, seen: list[dict]) -> None:
    """That TensorBoard shows at every step what the plain implementation measured there."""
    curves, compared = {tag: dict(points) for tag, points in scalars(run).items()}, 0
    for step, metrics in enumerate(seen, 1):
        for name in metrics.keys() & {tag.removeprefix("train/") for tag in curves}:
            found = curves[f"train/{name}"][step]
            assert math.isclose(found, metrics[name], rel_tol=1e-3, abs_tol=1e-6), (name, step)
            compared += 1
    assert compared >= 2 * len(seen)  # a loss and the learning rate at the least


# ---------------------------------------------------------------- stage 1


def reference_1(root: Path, run: Path) -> Stage1:
    """The plain implementation with the settings of `run`, at the weights that it began with."""
    config, begin = config_of(run), checkpoint(root / "runs" / STARTED, 1)
    model, (mels, _) = tiny.load(root / "stage1.json").model, data_of(config)
    vae = AutoencoderKL(model.autoencoderkl)
    vae.load_state_dict(load_file(begin / "vae.safetensors"))
    if config["train"]["init_from"] is None:
        vae.latent_std.fill_(1.0)
    discriminator = PatchDiscriminator(model.loss.disc_channels, model.loss.disc_num_layers)
    discriminator.load_state_dict(_below("discriminator", load_file(begin / "loss.safetensors")))
    stream = ClipStream(len(mels), config["train"]["random_seed"])
    return Stage1(config, vae, discriminator, mels, stream)


def weights_1(reference: Stage1) -> dict[str, torch.Tensor]:
    """All that stage 1 learns or keeps, under the names of `learnt_1`."""
    found = {f"vae.{k}": v for k, v in reference.vae.named_parameters()}
    found |= {f"discriminator.{k}": v for k, v in reference.discriminator.named_parameters()}
    found |= {"vae.latent_std": reference.latent_std, "d_weight": reference.d_weight}
    return {k: v.detach().clone() for k, v in (found | {"logvar": reference.logvar}).items()}


def learnt_1(run: Path, step: int) -> dict[str, torch.Tensor]:
    vae = load_file(checkpoint(run, step) / "vae.safetensors")
    return {f"vae.{k}": v for k, v in vae.items()} | load_file(
        checkpoint(run, step) / "loss.safetensors"
    )


# ---------------------------------------------------------------- stage 2


def write_t5(folder: Path, captions: list[str], seed: int = 0) -> Path:
    """A T5 with random weights and a tokenizer of the captions' words, as hubs hold them."""
    words = dict.fromkeys(word for caption in captions for word in caption.split())
    vocabulary = {word: n for n, word in enumerate(("<pad>", "</s>", "<unk>", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    signs = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **signs).save_pretrained(folder)
    torch.manual_seed(seed)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    return folder


def write_vae(root: Path, trained: Path) -> Path:
    """<root>/vae, as a run left it, but with wide posteriors and a scale far from 1."""
    shutil.copytree(trained / "final", root / "vae")
    weights = load_file(root / "vae/vae.safetensors")
    bias = weights["quant_conv.bias"]
    bias[len(bias) // 2 :] = -1.0
    weights["latent_std"].fill_(0.6)
    save_file(weights, root / "vae/vae.safetensors")
    return root / "vae"


def write_start(root: Path, trained: Path) -> Path:
    """<root>/start, as a run of stage 2 left it, but with no layer at zero: all learn at once."""
    shutil.copytree(trained / "final", root / "start")
    weights = load_file(root / "start/unet.safetensors")
    random = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        if tensor.abs().max() < 1e-20:
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=random))
    save_file(weights, root / "start/unet.safetensors")
    return root / "start"


def reference_2(root: Path, run: Path) -> Stage2:
    """The plain implementation with the settings of `run`, at the weights of <root>/start."""
    config, (mels, records) = config_of(run), data_of(config_of(run))
    vae = AutoencoderKL(tiny.load(root / "stage1.json").model.autoencoderkl)
    vae.load_state_dict(load_file(root / "vae/vae.safetensors"))
    unet = UNet(tiny.load(root / "stage2.json").model.audioldm)
    unet.load_state_dict(load_file(root / "start/unet.safetensors"))
    settings = config["model"]["text_encoder"]
    folder = settings["pretrained"] or str(root / "start/text_encoder")
    text = Text(
        T5EncoderModel.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        settings["max_tokens"],
        frozen=settings["pretrained"] is not None,
    )
    stream = ClipStream(len(records), config["train"]["random_seed"])
    return Stage2(config, vae, unet, text, (mels, records), stream)


def write_flow_start(root: Path) -> Path:
    """<root>/flow, as <root>/start, but along a flow and guided by 2.5, means by half."""
    shutil.copytree(root / "start", root / "flow")
    settings = json.loads((root / "flow/pipeline.json").read_text())
    settings["noise_scheduler"]["prediction_type"] = "flow_prediction"
    settings["sampling"] |= {"guidance_scale": 2.5, "guidance_mean": 0.5}
    (root / "flow/pipeline.json").write_text(json.dumps(settings))
    return root / "flow"


def reference_flow_map(root: Path, run: Path) -> FlowMap:
    """The plain implementation with the settings of `run`, at the weights of <root>/flow."""
    config, (mels, records) = config_of(run), data_of(config_of(run))
    vae = AutoencoderKL(tiny.load(root / "stage1.json").model.autoencoderkl)
    vae.load_state_dict(load_file(root / "flow/vae/vae.safetensors"))
    shape, weights = (
        tiny.load(root / "stage2.json").model.audioldm,
        load_file(root / "flow/unet.safetensors"),
    )
    teacher, unet = UNet(shape), UNet(dataclasses.replace(shape, span_embedding=True))
    teacher.load_state_dict(weights)
    unet.load_state_dict(weights, strict=False)
    assert not unet.time_embedding.cond_proj.weight.any()
    folder = str(root / "flow/text_encoder")
    model = T5EncoderModel.from_pretrained(folder)
    tokens = config["model"]["text_encoder"]["max_tokens"]
    text = Text(model, AutoTokenizer.from_pretrained(folder), tokens, frozen=True)
    stream = ClipStream(len(records), config["train"]["random_seed"])
    return FlowMap(teacher, 2.5, 2, config, vae, unet, text, (mels, records), stream)


def weights_2(reference: Stage2, tensors: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors in the order of the reference's parameters, by the names of `learnt_2`."""
    parts: list[tuple[str, nn.Module]] = [("unet", reference.unet)]
    if not reference.text.frozen:
        parts.append(("text_encoder.model", reference.text.model))
    names = [f"{part}.{name}" for part, module in parts for name, _ in module.named_parameters()]
    return {k: v.detach().clone() for k, v in zip(names, tensors, strict=True)}


def learnt_2(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(checkpoint(run, step) / "learning.safetensors")


def for_inference_2(run: Path, step: int) -> dict[str, torch.Tensor]:
    """What sampling uses, under the same names."""
    folder = checkpoint(run, step)
    unet = load_file(folder / "unet.safetensors")
    text = load_file(folder / "text_encoder/model.safetensors")
    return {f"unet.{k}": v for k, v in unet.items()} | {
        f"text_encoder.model.{k}": v for k, v in text.items()
    }


def _below(part: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = f"{part}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
