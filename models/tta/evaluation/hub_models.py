"""Backbones that transformers has classes for: AST, a tagger, and CLAP, sound and text together."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.errors import UserError

AST_RATE, CLAP_RATE = 16000, 48000
CLAP_SECONDS = 10  # of a longer sound its feature extractor takes a random part


class AST(nn.Module):
    """wav [1, T] at 16 kHz -> (embedding [1, D], logits [1, C]); Gong et al., 2021.

    What is longer than the model's frames (10.24 s) is cut, what is shorter is padded.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import ASTFeatureExtractor, ASTForAudioClassification

        super().__init__()
        self.extract = _load(ASTFeatureExtractor, folder)
        self.net = _load(ASTForAudioClassification, folder)

    @property
    def labels(self) -> list[str]:
        names = self.net.config.id2label
        return [names[index] for index in range(len(names))]

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        heard = self.extract(wav[0].cpu().numpy(), sampling_rate=AST_RATE, return_tensors="pt")
        hidden = self.net.audio_spectrogram_transformer(heard["input_values"].to(wav.device))
        return hidden.pooler_output, self.net.classifier(hidden.pooler_output)


class CLAP(nn.Module):
    """wav [1, T] at 48 kHz -> (embedding [1, D] of length 1, None); Wu et al., 2022.

    Of a sound of more than 10 s the first 10 s are heard; a shorter one is repeated up to 10 s.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        super().__init__()
        self.extract = _load(ClapFeatureExtractor, folder)
        self.tokenize = _load(AutoTokenizer, folder)
        self.net = _load(ClapModel, folder)

    def forward(self, wav: Tensor) -> tuple[Tensor, None]:
        wav = wav[0, : CLAP_SECONDS * CLAP_RATE].cpu().numpy()
        heard = self.extract(wav, sampling_rate=CLAP_RATE, return_tensors="pt")
        heard = heard.to(self.net.device)
        return F.normalize(self.net.get_audio_features(**heard).pooler_output, dim=1), None

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """[1, D] of length 1, in the space of the sounds."""
        tokens = self.tokenize([text], return_tensors="pt", truncation=True)
        tokens = tokens.to(self.net.device)
        return F.normalize(self.net.get_text_features(**tokens).pooler_output, dim=1)


def _load(kind, folder: Path):
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{folder}: not a folder of {kind.__name__}: {reason}") from None
