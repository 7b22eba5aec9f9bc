"""Whole published pipelines, as diffusers' and transformers' own classes run them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from diffusers import AudioLDMPipeline, AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from bins.tta import inference
from config.model_schema import SmallT5Config
from models.tta.convert import latent_diffusion
from models.tta.convert.latent_diffusion import read_audioldm
from models.tta.convert.published import find_model
from models.tta.ldm.pipeline import Pipeline, read_pipeline
from models.tta.ldm.sampling import starting_noise
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.studio.shelf import Limits, Shelf
from models.vocoders.load import load_vocoder
from tests import small_clap
from tests.models.tta.convert.ldm_style import (
    ldm_unet_weights,
    ldm_vae_weights,
    random_unet,
    random_vae,
)
from tests.models.tta.convert.published_configs import TANGO, audioldm
from tests.models.tta.convert.small_models import randomise
from tests.models.tta.convert.test_from_ldm_style import CLOSE, FOREIGN, turned
from utils.checkpoint import read_json, write_json
from utils.errors import UserError

TEXTS, SEEDS, SECONDS, STEPS = ["a dog barks", "rain and wind falls"], [3, 11], 0.32, 3
NOISE = (8, 16, 8)  # z, mel / 4, frames / 4

# ---------------------------------------------------------------- small ones, whole


def vocoder() -> SpeechT5HifiGan:
    torch.manual_seed(2)
    config = SpeechT5HifiGanConfig(
        **{"model_in_dim": 64, "sampling_rate": 16000, "upsample_initial_channel": 64},
        upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        normalize_before=False,
    )
    return randomise(SpeechT5HifiGan(config)).eval()


def vae() -> AutoencoderKL:
    torch.manual_seed(3)
    network = AutoencoderKL(
        **{"in_channels": 1, "out_channels": 1, "latent_channels": 8, "norm_num_groups": 8},
        block_out_channels=[32, 64, 128],
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=2,
        scaling_factor=0.9227,
    )
    return randomise(network).eval()


def unet(settings: dict, **changes) -> UNet2DConditionModel:
    torch.manual_seed(4)
    small = {**settings, "norm_num_groups": 8, **changes}
    return randomise(UNet2DConditionModel.from_config(small)).eval()


def scheduler(**changes) -> DDIMScheduler:
    settings = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
    settings |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return DDIMScheduler(**{**settings, **changes})


@pytest.fixture(scope="module")
def audioldm_pipeline(tmp_path_factory) -> tuple[AudioLDMPipeline, Path]:
    widths = [32, 64, 96, 160]
    changes = {"block_out_channels": widths, "cross_attention_dim": widths, "sample_size": 8}
    changes["projection_class_embeddings_input_dim"] = small_clap.DIM
    torch.manual_seed(5)
    text = ClapTextModelWithProjection(ClapTextConfig(**small_clap.TEXT))
    pipe = AudioLDMPipeline(
        vae=vae(),
        text_encoder=randomise(text).eval(),
        tokenizer=small_clap.clap_tokenizer(),
        unet=unet(audioldm(128), **changes),
        scheduler=scheduler(),
        vocoder=vocoder(),
    )
    pipe.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp("audioldm") / "theirs"
    pipe.save_pretrained(folder)
    return pipe, folder


class Tango:
    """Tango's sampling (Ghosal et al. 2023, arXiv:2304.13731), from the libraries' classes."""

    def __init__(self) -> None:
        shape = {"vocab_size": 80, "d_model": 24, "num_layers": 1, "num_heads": 2, "d_ff": 32}
        torch.manual_seed(6)
        self.text = TextEncoder.small(SmallT5Config(**shape), TEXTS, 512).eval()
        self.unet = unet(
            TANGO,
            attention_head_dim=[1, 2, 4, 4],
            block_out_channels=[32, 64, 128, 128],
            cross_attention_dim=24,
            transformer_layers_per_block=[1, 2, 3, 1],
        )
        self.vae, self.vocoder = vae(), vocoder()
        self.scheduler = scheduler(
            beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction"
        )

    def write(self, folder: Path) -> Path:
        for name in ("unet", "vae", "vocoder", "scheduler"):
            getattr(self, name).save_pretrained(folder / name)
        self.text.model.save_pretrained(folder / "text_encoder")
        self.text.tokenizer.save_pretrained(folder / "tokenizer")
        parts = {name: ["", ""] for name in ("unet", "vae", "vocoder", "scheduler")}
        index = {"_class_name": "TangoPipeline", "text_encoder": ["", ""], **parts}
        write_json(folder / "model_index.json", index)
        return folder

    @torch.no_grad()
    def __call__(self, texts: list[str], latents: torch.Tensor, scale: float):
        tokens = self.text.tokenizer(
            [*texts, *[""] * len(texts)], padding=True, return_tensors="pt"
        )
        states = self.text.model(tokens.input_ids, tokens.attention_mask).last_hidden_state
        mask = tokens.attention_mask.bool()
        self.scheduler.set_timesteps(STEPS)
        for t in self.scheduler.timesteps:
            found = self.unet(
                torch.cat([latents] * 2), t, states, encoder_attention_mask=mask
            ).sample
            prompted, empty = found.chunk(2)
            latents = self.scheduler.step(
                empty + scale * (prompted - empty), t, latents
            ).prev_sample
        mel = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        # A kernel that is longer by an odd number adds some samples at the end.
        return latents, mel, self.vocoder(mel.squeeze(1))[:, : mel.shape[2] * 160]


def ours(folder: Path, scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scaled latent, mel and wav of this repository, from an imported folder, in float32."""
    pipeline: Pipeline = read_pipeline(folder)
    latents, decode = [], pipeline.vae.decode
    pipeline.vae.decode = lambda z: latents.append(pipeline.vae.scale(z)) or decode(z)
    sampling = pipeline.settings.sampling_with(
        duration=SECONDS, num_steps=STEPS, guidance_scale=scale
    )
    assert sampling.sampler == "ddim"
    mels = pipeline(TEXTS, SEEDS, sampling)
    vocoder = load_vocoder(pipeline.settings.vocoder_of(folder), pipeline.settings.mel)
    return latents[0], mels, vocoder(mels)


def assert_close(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Up to 1e-4 of its own size."""
    size = expected.std().item()
    assert size > 1e-3
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4 * size)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_audioldm_sounds_as_in_diffusers(audioldm_pipeline, tmp_path, scale):
    pipe, folder = audioldm_pipeline
    latents = []
    wav = pipe(
        TEXTS,
        audio_length_in_s=SECONDS,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        latents=turned(starting_noise(NOISE, SEEDS, torch.device("cpu"))),
        callback=lambda step, timestep, latent: latents.append(latent),
        output_type="pt",
    ).audios
    found = ours(find_model(str(folder), str(tmp_path)), scale)
    assert_close(found[0], turned(latents[-1]))
    assert_close(found[1], turned(pipe.decode_latents(latents[-1]))[:, 0])
    assert_close(found[2], wav)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_tango_sounds_as_from_the_libraries_classes(tmp_path, scale):
    tango = Tango()
    noise = starting_noise(NOISE, SEEDS, torch.device("cpu"))
    latent, mel, wav = tango(TEXTS, turned(noise), scale)
    folder = find_model(str(tango.write(tmp_path / "tango")), str(tmp_path))
    assert read_pipeline(folder).settings.unet.transformer_depth == [1, 2, 3, 1]
    found = ours(folder, scale)
    assert_close(found[0], turned(latent))
    assert_close(found[1], turned(mel)[:, 0])
    assert_close(found[2], wav)


def test_a_pipeline_is_imported_once_and_anew_where_it_changed(audioldm_pipeline, tmp_path, capsys):
    _, folder = audioldm_pipeline
    first = find_model(str(folder), str(tmp_path))
    assert first.parent == tmp_path / "imported"
    assert "imported into" in capsys.readouterr().err
    assert find_model(str(folder), str(tmp_path)) == first
    assert capsys.readouterr().err == ""
    index = folder / "model_index.json"
    index.write_text(index.read_text() + "\n")
    assert find_model(str(folder), str(tmp_path)) != first


def test_the_studio_offers_a_published_pipeline_with_its_vocoder(audioldm_pipeline, tmp_path):
    name = str(audioldm_pipeline[1])
    shelf = Shelf([str(tmp_path)], [name], torch.device("cpu"), Limits())
    folder = find_model(name, str(tmp_path))
    assert shelf.models() == {name: folder}
    assert shelf.vocoders(name) == [str(folder / "vocoder"), "griffin_lim"]
    [wish] = shelf.wishes("a dog barks", name, None, 1)
    assert (wish.folder, wish.vocoder) == (str(folder), str(folder / "vocoder"))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"encoder_hid_dim": 8}, "encoder_hid_dim is 8, not None"),
        ("unet", {"class_embeddings_concat": False}, "class_embeddings_concat is False, not True"),
        ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ("text_encoder", {"model_type": "gpt2"}, "is a 'gpt2'; it must be a 'clap'"),
    ],
)
def test_what_is_not_here_is_refused_by_its_name(
    audioldm_pipeline, tmp_path, part, changes, message
):
    config = audioldm_pipeline[1] / part / "config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps({**json.loads(before), **changes}))
        with pytest.raises(UserError, match=message):
            find_model(str(audioldm_pipeline[1]), str(tmp_path))
    finally:
        config.write_text(before)
    assert not list(tmp_path.glob("imported/*/"))


# ---------------------------------------------------------------- AudioLDM's own file


@torch.no_grad()
def test_audioldm_s_own_checkpoint(tmp_path, monkeypatch):
    widths = [128, 128, 128]
    theirs = random_unet(
        attention_head_dim=4,  # of 32 channels each
        cross_attention_dim=widths,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=small_clap.DIM,
        class_embeddings_concat=True,
    )
    state = theirs.state_dict()
    projection = {name: state.pop(f"class_embedding.{name}") for name in ("weight", "bias")}
    bare = SimpleNamespace(state_dict=lambda: state, config=theirs.config)
    named = ldm_unet_weights(bare) | {f"film_emb.{n}": v for n, v in projection.items()}
    file = {f"model.diffusion_model.{n}": torch.zeros_like(v) for n, v in named.items()}
    file |= {"model_ema.diffusion_model" + n.replace(".", ""): v for n, v in named.items()}
    file |= {
        f"first_stage_model.{n}": v for n, v in ldm_vae_weights(random_vae(2, False, 4)).items()
    }
    small_clap.write_clap(tmp_path / "clap")
    text = randomise(ClapTextModelWithProjection(ClapTextConfig(**small_clap.TEXT))).eval()
    for name, value in text.state_dict().items():
        name = name.replace("text_model", "text_branch")
        name = name.replace("linear1", "0").replace("linear2", "2")
        file[f"cond_stage_model.model.{name}"] = value
    voice = vocoder()
    monkeypatch.setitem(latent_diffusion.AUDIOLDM_VOCODER, "upsample_initial_channel", 64)
    monkeypatch.setitem(latent_diffusion.AUDIOLDM_VOCODER, "resblock_kernel_sizes", [3])
    monkeypatch.setitem(latent_diffusion.AUDIOLDM_VOCODER, "resblock_dilation_sizes", [[1, 3]])
    for name, value in voice.state_dict().items():
        if name not in ("mean", "scale"):
            file[f"first_stage_model.vocoder.{name.replace('upsampler', 'ups')}"] = value
    torch.save({"state_dict": file}, tmp_path / "audioldm.ckpt")

    found = read_audioldm([tmp_path / "audioldm.ckpt"], FOREIGN, str(tmp_path / "clap"))
    found.check_whole(tmp_path)
    sampling, schedule = found.settings.sampling, found.settings.noise_scheduler
    assert (sampling.sampler, sampling.num_steps, sampling.guidance_scale) == ("ddim", 200, 2.5)
    assert (schedule.beta_end, schedule.timestep_spacing) == (0.0195, "leading")
    latent, timesteps = torch.randn(2, 4, 6, 8), torch.tensor([3, 800])
    embedding, mask = found.text_encoder.encode(TEXTS)
    tokens = small_clap.clap_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    expected = torch.nn.functional.normalize(text(**tokens).text_embeds, dim=-1)
    torch.testing.assert_close(embedding[:, 0], expected, **CLOSE)
    expected = theirs(turned(latent), timesteps, None, class_labels=expected).sample
    assert expected.std() > 0.01
    torch.testing.assert_close(
        found.unet(latent, timesteps, embedding, mask), turned(expected), **CLOSE
    )
    mel = torch.randn(1, 64, 5)
    voice.mean.zero_(), voice.scale.fill_(1)
    expected = voice(mel.transpose(1, 2))[:, : 5 * 160]
    torch.testing.assert_close(found.vocoder(mel), expected, **CLOSE)


def test_the_command_takes_a_hub_name_and_keeps_the_best(audioldm_pipeline, tmp_path, monkeypatch):
    folder = str(audioldm_pipeline[1])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: folder)
    small_clap.write_clap(tmp_path / "clap")
    given = {
        **{"checkpoint_path": "cvssp/audioldm-s-full-v2", "text": TEXTS[0], "device": "cpu"},
        **{"num_candidates": 2, "num_steps": 2, "duration": SECONDS, "clap": tmp_path / "clap"},
        **{"log_dir": tmp_path / "runs", "output_dir": tmp_path / "out"},
    }
    options = [f"--{name}={value}" for name, value in given.items()]
    monkeypatch.setattr(sys, "argv", ["inference.py", *options])
    inference.main()
    receipt = read_json(tmp_path / "out" / "0000.json")
    assert receipt["sampler"] == "ddim"
    assert Path(receipt["vocoder"]).is_relative_to(tmp_path / "runs" / "imported")
    scores = receipt["clap_scores"]
    assert (len(scores), receipt["clap_score"]) == (2, max(scores))
    assert receipt["seed"] == scores.index(max(scores))
    assert len(list((tmp_path / "out").glob("*.wav"))) == 1
