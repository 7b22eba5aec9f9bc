"""LoRA: small changes of a frozen model, trained and kept beside it, in peft's files.

A weight W [out, in, ...] becomes W + (alpha / rank) B A, with A [rank, in, ...] and B [out, rank]
(Hu et al. 2021, arXiv:2106.09685, section 4.1). Of a convolution, A is one with its kernel, B one
of 1x1. B begins at zero, so that the first step starts from the frozen network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from config.schema import LoRAConfig
from config.typed_json import Text, typed
from models.tta.ldm.unet import UNet
from models.tta.pipeline_json import read_settings, write_settings
from utils.checkpoint import (
    check_finite,
    file_hash,
    load_tensors,
    read_json,
    save_tensors,
    write_json,
)
from utils.errors import UserError
from utils.run_folder import WEIGHTS, find_weights

if TYPE_CHECKING:  # imported where adapters are trained
    from peft import LoraConfig

MODEL_TYPE = "LoRA"
CONFIG_FILE = "adapter_config.json"  # peft's name, as that of the weights is
PREFIX = "base_model.model."  # of the tensors' names in peft's file
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
VECTORS = ("class_embedding", "time_emb_proj")  # of a text, and of it and the time
BETWEEN = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
TARGETS = {"attention": ATTENTION, "all": (*ATTENTION, *BETWEEN, *VECTORS, *CONVOLUTIONS)}
TEXT_ENCODER = "text_encoder"  # folder of a T5's adapters, beside those of the U-Net
T5_ATTENTION, T5_BETWEEN = ("q", "k", "v", "o"), ("wi", "wi_0", "wi_1", "wo")
T5_TARGETS = {"attention": T5_ATTENTION, "all": (*T5_ATTENTION, *T5_BETWEEN)}
# What an adapter_config.json may say of how much is added; peft has other ways, too.
PLAIN = {"peft_type": "LORA", "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}


@typed
class AdapterSettings:
    """What an adapter's pipeline.json holds: which weights it changes."""

    adapts: Literal["AudioLDM", "AUDIT"]
    base: Text  # the folder of these weights when it was trained
    base_weights: Text  # hash of their file, see `hash_of`
    made_from: dict[str, str]  # for people: as of `PipelineSettings`


def hash_of(folder: Path, model_type: str) -> str:
    """The first twelve hex digits of the SHA-256 of the weights in a folder of them."""
    return file_hash(folder / WEIGHTS[model_type])[:12]


# ---------------------------------------------------------------- in training


def adapt(network: nn.Module, config: LoRAConfig) -> None:
    """Puts new adapters (torch's global generator) into a U-Net or a T5; they alone learn then."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(peft_config(network, config), network)


def peft_config(network: nn.Module, config: LoRAConfig, base: str | None = None) -> LoraConfig:
    """The same settings as peft has them."""
    from peft import LoraConfig

    targets = TARGETS if isinstance(network, UNet) else T5_TARGETS
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(targets[config.target]),
        base_model_name_or_path=base,
    )


def adapter_tensors(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapters in a network, by their names in peft's file."""
    named = ((n, p) for n, p in network.named_parameters() if ".lora_" in n)
    return {PREFIX + name.replace(".default.", "."): parameter for name, parameter in named}


def write_adapter(
    folder: Path, networks: dict[str, nn.Module], config: LoRAConfig, settings: AdapterSettings
) -> None:
    """Writes the adapters of a model as `Adapter` and peft read them.

    `networks` are {"": U-Net} and, where it has adapters as well, {TEXT_ENCODER: T5}, by the
    folders in `folder` that theirs are written into.
    """
    for part, network in networks.items():
        (folder / part).mkdir(exist_ok=True)
        base = str(Path(settings.base, part))
        settings_of_peft = peft_config(network, config, base).to_dict()
        settings_of_peft["target_modules"] = sorted(settings_of_peft["target_modules"])
        write_json(folder / part / CONFIG_FILE, settings_of_peft)
        save_tensors(folder / part / WEIGHTS[MODEL_TYPE], adapter_tensors(network))
    write_settings(folder, MODEL_TYPE, settings)


@torch.no_grad()
def read_into(network: nn.Module, path: Path) -> None:
    """Loads a file of `adapter_tensors` into a network with adapters of the same shapes."""
    tensors, parameters = load_tensors(path), adapter_tensors(network)
    check_finite(tensors, path)
    if tensors.keys() != parameters.keys():
        raise UserError(f"{path}: adapters of other layers than train.lora names")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


# ---------------------------------------------------------------- in use


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Adapters on disk, and how strongly they are wanted: 1 as they were trained, 0 not at all."""

    folder: Path
    weight: float
    settings: AdapterSettings

    @classmethod
    def find(cls, text: str) -> Adapter:
        """That of "RUN" or "RUN:0.5", where RUN is a run, a folder of weights or a hub model."""
        path, weight = text, 1.0
        before, _, number = text.rpartition(":")
        if before and _is_number(number):
            path, weight = before, float(number)
        if not math.isfinite(weight):
            raise UserError(f"--lora {text}: the weight must be a finite number")
        folder = find_weights(path, "", MODEL_TYPE)
        return cls(folder, weight, read_settings(folder, MODEL_TYPE, AdapterSettings))

    def receipt(self) -> dict[str, object]:
        """What makes the same again."""
        weights = hash_of(self.folder, MODEL_TYPE)
        return {"folder": str(self.folder), "weight": self.weight, "weights": weights}

    def check_base(self, folder: Path) -> None:
        """Raises UserError unless the weights in `folder` are those that it was trained on."""
        settings, found = self.settings, hash_of(folder, self.settings.adapts)
        if found != settings.base_weights:
            raise UserError(
                f"--lora {self.folder}: it adapts the weights {settings.base_weights}, which were"
                f" in {settings.base}; in {folder} are {found}. Name its own: --checkpoint_path"
            )

    def factors(self, part: str = "") -> Iterator[tuple[str, Tensor, Tensor]]:
        """For each layer its name, B [out, rank, ...] times all that scales it, and A [rank, ...].

        Args:
            part: "" for the U-Net's, or TEXT_ENCODER, of which there may be none.

        Raises:
            UserError: the files hold anything else than a LoRA as above.
        """
        folder = self.folder / part
        if part and not folder.is_dir():
            return
        file, path = folder / CONFIG_FILE, folder / WEIGHTS[MODEL_TYPE]
        config = read_json(file)
        if unlike := [name for name, value in PLAIN.items() if config.get(name, value) != value]:
            name = unlike[0]
            raise UserError(f"{file}: {name} is {config[name]!r}, which is not supported here")
        try:
            scale = self.weight * config["lora_alpha"] / config["r"]
        except (KeyError, TypeError, ZeroDivisionError):
            raise UserError(f"{file}: r and lora_alpha must be there") from None
        tensors = load_tensors(path)
        check_finite(tensors, path)
        while tensors:
            name = next(iter(tensors))
            layer = name.rpartition(".lora_")[0]
            pair = [tensors.pop(f"{layer}.lora_{part}.weight", None) for part in "BA"]
            whole = all(isinstance(part, Tensor) for part in pair)
            if not whole or {pair[0][0].numel(), len(pair[1])} != {config["r"]}:
                raise UserError(f"{path}: {name} is no part of a LoRA of rank {config['r']}")
            yield layer.removeprefix(PREFIX), scale * pair[0], pair[1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def find_adapters(texts: Sequence[str], model_type: str | None = None) -> list[Adapter]:
    """As `Adapter.find`, all for a model of this type; None: of the same type."""
    adapters = [Adapter.find(text) for text in texts]
    for adapter in adapters:
        found, wanted = adapter.settings.adapts, model_type or adapters[0].settings.adapts
        if found != wanted:
            raise UserError(f"--lora {adapter.folder}: it adapts an {found}, not an {wanted}")
    return adapters


def base_of(adapters: Sequence[Adapter], named: str | None) -> str | None:
    """The base that the user named; else that of the first adapter, if there is any."""
    if named is not None or not adapters:
        return named
    first = adapters[0]
    if not Path(first.settings.base).is_dir():
        raise UserError(
            f"--lora {first.folder}: its base {first.settings.base} is not there any more; say"
            " where it is: --checkpoint_path DIR"
        )
    return first.settings.base


@torch.no_grad()
def merge(network: nn.Module, adapters: Sequence[Adapter], part: str = "") -> None:
    """Adds what the adapters change to the weights of the network, one after the other.

    `part` says which it is of the model, as in `Adapter.factors`.
    """
    weights = dict(network.named_parameters())
    for adapter in adapters:
        for layer, up, down in adapter.factors(part):
            weight, shape = weights.get(f"{layer}.weight"), [up.shape[0], *down.shape[1:]]
            if weight is None or list(weight.shape) != shape:
                raise UserError(
                    f"{adapter.folder}: made for another network: {layer} is {shape} there and"
                    f" {'missing' if weight is None else list(weight.shape)} here"
                )
            weight += (up.flatten(1) @ down.flatten(1)).view_as(weight)
