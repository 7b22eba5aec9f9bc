"""Training adapters of a model instead of its weights: what that changes of the models' own tasks.

The model in train.init_from stays as it is, with its VAE and its text encoder. A checkpoint has
none of them, only their place and the hash of the U-Net, by which another one is refused.
"""

from __future__ import annotations

from pathlib import Path

from models.tta.editing.training import AUDITTraining
from models.tta.ldm.lora import (
    MODEL_TYPE,
    TEXT_ENCODER,
    AdapterSettings,
    adapt,
    adapter_tensors,
    hash_of,
    read_into,
    write_adapter,
)
from models.tta.ldm.pipeline import PipelineSettings, text_encoder_class
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.training import AudioLDMTraining
from models.tta.pipeline_json import read_settings
from utils.checkpoint import save_tensors
from utils.errors import UserError
from utils.run_folder import WEIGHTS

LEARNING = "learning.safetensors"


class AudioLDMLoRATraining(AudioLDMTraining):
    """Adapters of stage 2's U-Net, and of its text encoder: a models/base Task."""

    def _find_start(self, checkpoint: Path | None) -> Path:
        """The base, of a run that goes on as well."""
        base, kind = super()._find_start(None), self.config.model_type
        parts = (self.weights_file, "vae", "text_encoder")
        if missing := [part for part in parts if not (base / part).exists()]:
            raise UserError(
                f"train.init_from {base}: train.lora adapts a whole {kind}; it lacks"
                f" {', '.join(missing)}"
            )
        self.base, self.base_weights = str(base.resolve()), hash_of(base, kind)
        if checkpoint:
            began = read_settings(checkpoint, MODEL_TYPE, AdapterSettings)
            if began.base_weights != self.base_weights:
                raise UserError(
                    f"train.init_from {base}: holds the weights {self.base_weights}, and this run"
                    f" adapts {began.base_weights}, which were in {began.base}: name that base, or"
                    " choose another --exp_name"
                )
        return base

    def _take_vae(self, checkpoint: Path | None, start: Path) -> None:
        super()._take_vae(None, start)
        self.made_from |= {"init_from": self.base, "base_weights": self.base_weights}

    def _find_vae(self, start: Path) -> Path:
        return start / "vae"

    def _make_text_encoder(self, checkpoint: Path | None, start: Path) -> TextEncoder:
        model = self.config.model
        kind, limit = text_encoder_class(model.audioldm), model.text_encoder.max_tokens
        return kind.from_pretrained(str(start / "text_encoder"), limit)

    def _text_learns(self) -> bool:
        return self.config.train.lora.text_encoder

    def _load_unet(self, start: Path) -> None:
        super()._load_unet(start)
        self.adapted = {"": self.unet}  # by folders, as `write_adapter` takes them
        if self.trains_text:
            self.adapted[TEXT_ENCODER] = self.text_encoder.model
        networks = self.adapted.values()
        whole = sum(weight.numel() for net in networks for weight in net.parameters()) / 1e6
        for network in networks:
            adapt(network, self.config.train.lora)
        sizes = [w.numel() for net in networks for w in adapter_tensors(net).values()]
        self.notes.append(
            f"adapters of {len(sizes) // 2} layers learn, {sum(sizes) / 1e6:.2f} M numbers beside"
            f" {whole:.1f} M that stay"
        )

    # ------------------------------------------------------------ files

    def _restore(self, checkpoint: Path) -> None:
        self._read(checkpoint, WEIGHTS[MODEL_TYPE])
        if self.ema:
            self.ema.load(dict(self.objective.named_parameters()))
        self._read(checkpoint, LEARNING)

    def _read(self, checkpoint: Path, file: str) -> None:
        for part, network in self.adapted.items():
            read_into(network, checkpoint / part / file)

    def save_for_inference(self, folder: Path) -> None:
        """The adapters, in peft's format, and what they are for."""
        made_from = PipelineSettings.of(self.config).made_from
        settings = AdapterSettings(self.config.model_type, self.base, self.base_weights, made_from)
        write_adapter(folder, self.adapted, self.config.train.lora, settings)

    def save_training(self, folder: Path) -> None:
        for part, network in self.adapted.items():
            (folder / part).mkdir(exist_ok=True)
            save_tensors(folder / part / LEARNING, adapter_tensors(network))


class AUDITLoRATraining(AudioLDMLoRATraining, AUDITTraining):
    """Adapters of an editor."""
