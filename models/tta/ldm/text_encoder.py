"""Captions to text embeddings: any pretrained T5, or a small one that is built from a config.

T5 (Raffel et al. 2020, arXiv:1910.10683); models and tokenizers are transformers' throughout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)
from transformers.utils import logging

from config.model_schema import SmallT5Config
from models.tta.ldm.tokenizer import strange_words, train_tokenizer
from processors.text import padded_length
from utils.errors import UserError

MOST_UNKNOWN = 0.2  # of a text's tokens; a tokenizer that knows fewer is another language's


class TextEncoder(nn.Module):
    """A T5 encoder with its tokenizer.

    Args:
        model: the T5 encoder, in float32.
        tokenizer: its tokenizer.
        max_tokens: longer texts are cut to this many tokens, of which </s> is the last.
        pads_negative: see `encode_guided`.
    """

    TYPES: ClassVar = ("t5",)  # transformers' names of the models that are taken
    EXAMPLES: ClassVar = "google-t5/t5-base or google/flan-t5-large are"
    MODEL: ClassVar = T5EncoderModel

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        max_tokens: int,
        pads_negative: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.pads_negative = pads_negative

    @classmethod
    def from_pretrained(cls, name_or_folder: str, max_tokens: int) -> TextEncoder:
        """A T5 from a folder (config.json, model.safetensors, tokenizer.json) or the hub.

        Raises:
            UserError: there is none, it is no T5, it has no safetensors weights, or parts of it
                are missing or do not belong together.
        """
        config = _fetch(AutoConfig.from_pretrained, name_or_folder)
        if config.model_type not in cls.TYPES:
            raise UserError(
                f"text encoder {name_or_folder!r} is a {config.model_type!r}; it must be a"
                f" {cls.TYPES[0]!r}, as {cls.EXAMPLES}"
            )
        model, report = _fetch(
            cls.MODEL.from_pretrained,
            name_or_folder,
            use_safetensors=True,  # no pickles
            dtype=torch.float32,
            output_loading_info=True,
        )
        if report["missing_keys"]:
            raise UserError(
                f"text encoder {name_or_folder!r}: its weights lack"
                f" {', '.join(sorted(report['missing_keys'])[:5])}; they are not those of a"
                f" {cls.TYPES[0].upper()}"
            )
        tokenizer = _fetch(AutoTokenizer.from_pretrained, name_or_folder)
        for name in ("is_local", "local_files_only"):  # of this call, not to be saved
            tokenizer.init_kwargs.pop(name, None)
        encoder = cls(model, tokenizer, max_tokens).eval()
        _check_tokenizer(encoder, name_or_folder)
        return encoder

    @classmethod
    def small(cls, config: SmallT5Config, captions: Iterable[str], max_tokens: int) -> TextEncoder:
        """A small T5 with random weights (torch's global generator); tokens from the captions."""
        tokenizer = train_tokenizer(captions, config.vocab_size)
        t5 = T5Config(
            vocab_size=len(tokenizer),
            d_model=config.d_model,
            d_kv=config.d_model // config.num_heads,
            d_ff=config.d_ff,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
        return cls(T5EncoderModel(t5), tokenizer, max_tokens)

    @property
    def dim(self) -> int:
        """Width D of the text embeddings."""
        return self.model.config.d_model

    def tokenize(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts -> token_ids [B, L] int64 and text_mask [B, L] bool, on the CPU.

        Every row ends with </s>, which is all there is to the empty text; then come pads.
        """
        rows = [torch.tensor(self._with_ends(row)) for row in self._words(texts)]
        lengths = torch.tensor([len(row) for row in rows])
        pad = self.tokenizer.pad_token_id
        token_ids = torch.full((len(rows), padded_length(int(lengths.max()))), pad)
        text_mask = torch.arange(token_ids.shape[1]) < lengths[:, None]
        token_ids[text_mask] = torch.cat(rows)
        return token_ids, text_mask

    def is_cut(self, text: str) -> bool:
        """Whether `max_tokens` leaves out the end of the text."""
        words = self._words([text])[0]
        return len(self._with_ends(words)) < len(words) + len(self._with_ends([]))

    def unknown_share(self, texts: Sequence[str]) -> float:
        """How many of the texts' tokens are <unk>, of 1."""
        ids = [token for row in self._words(texts) for token in row]
        return ids.count(self.tokenizer.unk_token_id) / max(1, len(ids))

    def faults_of(self, texts: Sequence[str]) -> list[str]:
        """What the model does not see of prompts, a line for each kind of fault."""
        cut, (odd, fault) = [text for text in texts if self.is_cut(text)], self._not_known(texts)
        lines = [f"cut to {self.max_tokens} tokens: {_shown(cut)}"] if cut else []
        return [*lines, f"{fault}: {_shown(odd)}"] if odd else lines

    def _not_known(self, texts: Sequence[str]) -> tuple[list[str], str]:
        """The texts of which half is not known or more, and what is wrong with them, in words."""
        odd: dict[str, list[str]] = {}
        for text in texts:
            strange, others = strange_words(self.tokenizer, text)
            if strange or others:
                is_odd = len(strange) >= max(1, others)
            else:
                is_odd = self.unknown_share([text]) > MOST_UNKNOWN
            if is_odd:
                odd[text] = strange
        fault = "mostly words that the text encoder does not know"
        if words := [word for strange in odd.values() for word in strange][:8]:
            few = "as the captions that it was trained on have few or none of them"
            fault += f", {few} ({', '.join(dict.fromkeys(words))})"
        return [*odd], fault

    def check_captions(self, captions: Iterable[str], prompts: Sequence[str] = ()) -> list[str]:
        """Warnings about captions to train on: how many are cut, and how much is not known.

        Args:
            prompts: of which sounds are made meanwhile, with warnings of their own.

        Raises:
            UserError: the tokenizer knows too little of the captions to learn from.
        """
        captions = sorted(set(captions))
        unknown = self.unknown_share(captions)
        if unknown > MOST_UNKNOWN:
            raise UserError(
                f"the text encoder does not know {unknown:.0%} of the captions' words, such as"
                f" {max(captions, key=lambda text: self.unknown_share([text]))[:60]!r}; take one"
                " that was trained on their language (model.text_encoder.pretrained), or"
                " model.text_encoder.pretrained=null for one that is made from them"
            )
        warnings = []
        if unknown > 0.01:
            warnings.append(f"the text encoder does not know {unknown:.0%} of the captions' words")
        odd, fault = self._not_known(captions)
        if odd and 2 * len(odd) >= len(captions):  # of one that was made from other captions
            warnings.append(f"{len(odd)} of {len(captions)} captions are {fault}")
        if cut := [caption for caption in captions if self.is_cut(caption)]:
            warnings.append(
                f"{len(cut)} of {len(captions)} captions are cut to {self.max_tokens} tokens"
                f" (model.text_encoder.max_tokens), such as {cut[0][:60]!r}"
            )
        return warnings + [f"inference.demo_prompts: {line}" for line in self.faults_of(prompts)]

    def pieces(self, text: str) -> list[int]:
        """The token ids of a text, without </s>."""
        return self._words([text])[0]

    def _words(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without </s>."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return encoded.input_ids

    def _with_ends(self, words: list[int]) -> list[int]:
        """The tokens of a text, cut to `max_tokens`."""
        return [*words[: self.max_tokens - 1], self.tokenizer.eos_token_id]

    def forward(self, token_ids: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """token_ids and text_mask [B, L] -> text_emb [B, L, D] float32; what pads hold is void.

        Autocast is off here: T5 overflows float16, and the states must not depend on whether they
        were made ahead of training, in it, or in sampling.
        """
        with torch.autocast(token_ids.device.type, enabled=False):
            return self.model(token_ids, attention_mask=text_mask.long()).last_hidden_state

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts -> text_emb [B, L, D] and text_mask [B, L] bool, on the model's device."""
        token_ids, text_mask = (part.to(self.model.device) for part in self.tokenize(texts))
        return self(token_ids, text_mask), text_mask

    def encode_guided(
        self, texts: Sequence[str], negative: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `encode`, of the texts and, behind them, of the negative text once for each.

        With `pads_negative` the negative text is filled up with pads to the length of the text that
        it stands beside, and they are seen like tokens: so it is in Amphion's sampling.
        """
        both = [*texts, *([negative] * len(texts))]
        token_ids, text_mask = (part.to(self.model.device) for part in self.tokenize(both))
        if self.pads_negative:
            text_mask[len(texts) :] |= text_mask[: len(texts)]
        return self(token_ids, text_mask), text_mask

    def save(self, folder: str | Path) -> None:
        """Writes model and tokenizer in transformers' format, for `from_pretrained`."""
        with _silent():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def fingerprint(self) -> str:
        """Twelve hex digits that change when a weight or the tokenizer does."""
        digest = _digest(self.model)
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        # What a call of the tokenizer leaves behind in it; `tokenize` goes without.
        tokenizer.pop("truncation"), tokenizer.pop("padding")
        digest.update(json.dumps(tokenizer, sort_keys=True).encode())
        return digest.hexdigest()[:12]


def _shown(texts: Sequence[str]) -> str:
    """The first of the texts, and how many more there are."""
    more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
    return f"{texts[0][:60]!r}{'...' * (len(texts[0]) > 60)}{more}"


def weights_fingerprint(model: nn.Module) -> str:
    """Twelve hex digits that change when a weight does."""
    return _digest(model).hexdigest()[:12]


def _digest(model: nn.Module) -> hashlib._Hash:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' bars and its report that a whole T5 has a decoder, too."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _fetch(loader: Callable[..., Any], name_or_folder: str, **options: Any) -> Any:
    """loader(name_or_folder, ...), which runs no code found there; failures are UserErrors."""
    local = Path(name_or_folder).is_dir()
    try:
        with _silent() if local else nullcontext():
            return loader(name_or_folder, trust_remote_code=False, **options)
    # A folder may hold anything, and transformers' exceptions have no common base.
    except Exception as error:
        what = "cannot be loaded" if local else "is not a folder and cannot be fetched from the hub"
        raise UserError(
            f"text encoder {name_or_folder!r} {what}: {error}\nGive a folder with config.json,"
            " model.safetensors and tokenizer.json of a T5:"
            " model.text_encoder.pretrained=/path/to/t5"
        ) from error


def _check_tokenizer(encoder: TextEncoder, name_or_folder: str) -> None:
    tokenizer, vocab_size = encoder.tokenizer, encoder.model.config.vocab_size
    # Where its files are missing, transformers makes a tokenizer that knows a blank and no word.
    if len(tokenizer.get_vocab().keys() - {*tokenizer.all_special_tokens}) <= 1:
        raise UserError(
            f"text encoder {name_or_folder!r}: its tokenizer knows no words: tokenizer.json is"
            " missing there. A folder of diffusers has it in tokenizer/, beside text_encoder/: copy"
            " both into one"
        )
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"text encoder {name_or_folder!r}: the tokenizer has {len(tokenizer)} tokens, the model"
            f" {vocab_size}; they do not belong together"
        )
    if None in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        raise UserError(
            f"text encoder {name_or_folder!r}: the tokenizer must have an eos_token and a"
            " pad_token, as a T5's has"
        )
