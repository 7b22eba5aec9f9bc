"""A small CLAP with random weights, and its tokenizer, for 16 values an embedding."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

DIM = 16
TEXT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "projection_dim": DIM,
    "max_position_embeddings": 64,
    **{"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
}
AUDIO = {
    "hidden_size": 32,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "patch_embeds_hidden_size": 16,
    "spec_size": 64,
    "num_mel_bins": 16,
    "projection_dim": DIM,
}


def clap_tokenizer() -> PreTrainedTokenizerFast:
    """RoBERTa's way: <s> text </s>, pieces of bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT["vocab_size"], special_tokens=special, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(["a dog barks and rain falls"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=60,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def small_clap(seed: int = 0) -> ClapModel:
    torch.manual_seed(seed)
    config = ClapConfig(text_config=TEXT, audio_config=AUDIO, projection_dim=DIM)
    return ClapModel(config).eval().requires_grad_(False)


def write_clap(folder: Path) -> ClapModel:
    """<folder> as transformers' ClapModel.from_pretrained and its processors read it."""
    clap = small_clap()
    clap.save_pretrained(folder)
    clap_tokenizer().save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=AUDIO["num_mel_bins"], hop_length=4096, truncation="rand_trunc"
    ).save_pretrained(folder)
    return clap
