"""bins/tta/convert.py from the command line, and what is done with its folders afterwards."""

import json
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

from bins.tta import convert, inference
from models.tta.ldm.pipeline import load_pipeline
from models.tta.ldm.text_encoder import TextEncoder
from models.vocoders.hifigan import HiFiGAN
from models.vocoders.load import load_vocoder
from processors.dataset import read_segment
from tests import tiny, warm
from tests.models.tta.convert.ldm_style import (
    ldm_unet_weights,
    ldm_vae_weights,
    random_unet,
    random_vae,
)
from tests.models.tta.convert.small_models import small_pipeline, write_run, write_vocoder
from tests.models.tta.convert.test_from_ldm_style import amphion_file
from tests.models.vocoders.test_hifigan import MEL as HIFIGAN_MEL
from tests.models.vocoders.test_hifigan import published, write_published
from utils.checkpoint import load_tensors, read_json, write_json
from utils.errors import UserError
from utils.run_folder import git_commit
from utils.seeds import generator


def program(patch: pytest.MonkeyPatch):
    """What runs the program in this process; UserErrors come out."""

    def start(*arguments: object) -> None:
        patch.setattr(sys, "argv", ["convert.py", *map(str, arguments)])
        convert.main()

    return start


@pytest.fixture
def run(monkeypatch):
    return program(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A trained run, a vocoder, and the export of both."""
    root = tmp_path_factory.mktemp("model")
    pipeline = small_pipeline(root)
    run_folder = write_run(root / "runs" / "small" / "final", pipeline).parent
    state = {"step": 40, "best_step": 30, "best_loss": 0.25, "files": {}}
    (run_folder / "checkpoints" / "step-00000040").mkdir(parents=True)
    (run_folder / "checkpoints" / "step-00000040" / "state.json").write_text(json.dumps(state))
    write_vocoder(root / "hifigan")
    with pytest.MonkeyPatch.context() as patch:
        program(patch)(
            "export", "--to", "diffusers", "--checkpoint_path", run_folder, "--vocoder",
            root / "hifigan", "--license", "cc-by-4.0", root / "exported",
        )  # fmt: skip
    return root


def test_amphion_s_three_files_make_a_model_that_speaks(run, model, tmp_path, capsys, monkeypatch):
    unet = random_unet(in_channels=2, out_channels=2, cross_attention_dim=16)
    weights = {f"unet.{name}": value for name, value in ldm_unet_weights(unet).items()}
    ldm = amphion_file(tmp_path / "audioldm.pt", weights)
    vae = amphion_file(tmp_path / "vae.pt", ldm_vae_weights(random_vae(2, attention=False, z=2)))
    config = tiny.write_config(tmp_path, 2)
    t5 = model / "runs" / "small" / "final" / "text_encoder"
    come = ("import", "--from", "amphion", "--config", config)

    run(*come, "--to", tmp_path / "all", "--text_encoder", t5, vae, ldm)
    assert f"--checkpoint_path {tmp_path / 'all'}" in capsys.readouterr().out
    run(*come, "--to", tmp_path / "vae", vae)
    run(*come, "--to", tmp_path / "bit by bit", "--vae", tmp_path / "vae", ldm)
    assert "for --checkpoint_path, import it with a VAE" in capsys.readouterr().out

    pipeline = load_pipeline(tmp_path / "all", "cpu")
    assert pipeline.settings.unet.num_heads == 2, "the config's"
    speak = ("--text", "a dog", "--num_steps", 2, "--vocoder", model / "hifigan", "--device", "cpu")
    where = ("--checkpoint_path", tmp_path / "all", "--output_dir", tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["inference.py", *map(str, (*speak, *where))])
    inference.main()
    assert (tmp_path / "out" / "0000.wav").stat().st_size > 1000


def test_parts_that_do_not_fit_are_refused(run, tmp_path):
    unet = random_unet(in_channels=3, out_channels=3, cross_attention_dim=16)
    unet.save_pretrained(tmp_path / "unet")
    random_vae(2, attention=False, z=4).save_pretrained(tmp_path / "vae")
    encoder = small_pipeline(tmp_path).text_encoder
    encoder.save(tmp_path / "t5")
    come = ("import", "--from", "diffusers", "--to", tmp_path / "out", tmp_path / "unet")
    with pytest.raises(UserError, match="latents of 3 channels, the VAE makes 4"):
        run(*come, tmp_path / "vae")
    random_unet(cross_attention_dim=24).save_pretrained(tmp_path / "unet")
    with pytest.raises(UserError, match="of width 24, the text encoder makes 16"):
        run(*come, "--text_encoder", tmp_path / "t5")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(run, model):
    with pytest.raises(UserError, match="exists; nothing is overwritten"):
        run("import", "--from", "amphion", "--to", model, "x.pt")
    with pytest.raises(UserError, match="exists; nothing is overwritten"):
        run("export", "--to", "diffusers", model)


def test_a_config_of_stage_2_is_wanted(run, tmp_path):
    with pytest.raises(UserError, match="must be of model_type AudioLDM, not AutoencoderKL"):
        run(
            "import", "--from", "amphion", "--to", tmp_path / "x", "--config",
            "egs/tta/autoencoderkl/exp_config.json", "x.pt",
        )  # fmt: skip


def test_the_model_card(model):
    card = (model / "exported" / "README.md").read_text()
    for fact in (
        "license: cc-by-4.0",
        "| hop_size | 32 |",
        "Trained on Tiny.",
        "| steps | 40 of 4 clips |",
        "| best validation loss | 0.25 at step 30 |",
        f"| made with commit | {git_commit()} |",
        'custom_pipeline="pipeline", trust_remote_code=True',
    ):
        assert fact in card, fact
    index = json.loads((model / "exported" / "model_index.json").read_text())
    parts = [name for name, value in index.items() if isinstance(value, list) and name[0] != "_"]
    files = {path.name for path in (model / "exported").iterdir()}
    assert files == {*parts, "model_index.json", "pipeline.py", "griffin_lim.py", "README.md"}
    for name in ("pipeline.py", "griffin_lim.py"):
        source = (model / "exported" / name).read_text()
        ours = r"^(from|import) (models|utils|modules|processors|config)"
        assert not re.search(ours, source, re.MULTILINE)


def test_an_imported_model_speaks_with_its_own_vocoder(run, model, tmp_path, monkeypatch):
    run("import", "--from", "diffusers", "--to", tmp_path / "again", model / "exported")
    moved = (tmp_path / "again").rename(tmp_path / "moved")
    speak = ("--text", "a dog", "--checkpoint_path", moved, "--device", "cpu")
    monkeypatch.setattr(
        sys, "argv", ["inference.py", *map(str, (*speak, "--output_dir", tmp_path / "out"))]
    )
    inference.main()
    receipt = read_json(tmp_path / "out" / "0000.json")
    assert receipt["vocoder"] == str(moved / "vocoder")
    assert not (moved / "config.json").exists(), "no config of a training that never was"


def test_an_imported_model_among_the_runs_is_found(run, model, tmp_path):
    run("import", "--from", "diffusers", "--to", tmp_path / "runs/it", model / "exported")
    run("export", "--to", "diffusers", "--log_dir", tmp_path / "runs", tmp_path / "out")
    assert (tmp_path / "out" / "vocoder").is_dir()


@pytest.mark.parametrize("kind", ["file", "nothing"])
def test_diffusers_is_a_folder(run, tmp_path, kind):
    if kind == "file":
        (tmp_path / "x.bin").write_bytes(b"weights")
    said = {"file": r"x\.bin: must be a folder in diffusers' layout", "nothing": "no such folder"}
    with pytest.raises(UserError, match=said[kind]):
        run("import", "--from", "diffusers", "--to", tmp_path / "out", tmp_path / "x.bin")


def test_an_export_s_text_encoder_alone_knows_no_words(run, model, tmp_path):
    random_unet(cross_attention_dim=16).save_pretrained(tmp_path / "unet")
    alone = ("--text_encoder", model / "exported" / "text_encoder")
    with pytest.raises(UserError, match=r"knows no words: tokenizer\.json is missing"):
        run("import", "--from", "diffusers", *alone, "--to", tmp_path / "out", tmp_path / "unet")


def test_hifigan_s_files_one_by_one_under_any_name(run, tmp_path):
    folder = write_published(tmp_path / "theirs", published(), name="generator_v1")
    (tmp_path / "theirs" / "config.json").rename(tmp_path / "config_v1.json")
    weights = (tmp_path / "theirs" / "generator_v1").rename(tmp_path / "weights")
    come = ("import", "--from", "hifigan", "--to")
    run(*come, tmp_path / "out", tmp_path / "config_v1.json", weights)
    assert load_vocoder(str(tmp_path / "out"), HIFIGAN_MEL)
    for files in ([weights], [tmp_path / "gone.json", weights], [weights, weights], [folder]):
        with pytest.raises(
            UserError,
            match=r"a HiFi-GAN is a folder, or its|no g_XXXXXXXX|no such file|not valid JSON",
        ):
            run(*come, tmp_path / "again", *files)


def test_an_imported_model_s_card_does_not_claim_its_data(run, model, tmp_path):
    run("import", "--from", "diffusers", "--to", tmp_path / "again", model / "exported")
    run("export", "--to", "diffusers", "--checkpoint_path", tmp_path / "again", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not known here: the weights were imported from diffusers." in card
    assert "AudioCaps" not in card


# ---------------------------------------------------------------- the hub


def test_an_export_is_in_float32_whatever_the_run_s_precision(run, model, tmp_path):
    final = shutil.copytree(model / "runs" / "small" / "final", tmp_path / "final")
    settings = {**read_json(final / "pipeline.json"), "mixed_precision": "bf16"}
    write_json(final / "pipeline.json", settings)
    run("export", "--to", "diffusers", "--checkpoint_path", final, tmp_path / "out")
    for part in ("unet", "vae"):
        file = f"{part}/diffusion_pytorch_model.safetensors"
        ours, theirs = (
            load_tensors(root / file) for root in (tmp_path / "out", model / "exported")
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_hub_names_stand_for_folders(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(model / name[6:])
    )
    monkeypatch.chdir(tmp_path)
    config = tiny.ROOT / "egs/tta/audioldm/exp_config_audioldm_vae.json"
    run("import", "--from", "diffusers", "--config", config, "--to", "vae", "owner/exported/vae")
    assert Path("vae/vae.safetensors").is_file()
    run("export", "--to", "diffusers", "--checkpoint_path", "owner/runs/small/final", "out")
    assert Path("out/unet").is_dir()
    assert isinstance(load_vocoder("owner/hifigan", tiny.MEL), HiFiGAN)
    with pytest.raises(UserError, match=r"convert\.py import --from diffusers --to DIR owner/exp"):
        run("export", "--to", "diffusers", "--checkpoint_path", "owner/exported", "again")


def test_pushing_without_a_network_leaves_the_folder(run, model, tmp_path, monkeypatch):
    class Api:
        def create_repo(self, name, exist_ok):
            raise ConnectionError("No network")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    final = model / "runs" / "small"
    with pytest.raises(UserError, match="No network\nThe folder is complete"):
        run(
            "export", "--to", "diffusers", "--checkpoint_path", final, "--push_to_hub", "me/bell",
            tmp_path / "out",
        )  # fmt: skip
    assert "# me/bell" in (tmp_path / "out" / "README.md").read_text()


# ---------------------------------------------------------------- fine-tuning


def fine_tune(root: Path, stage: int, *overrides: str) -> float:
    """The first validation loss of a run of one step."""
    config = ["--config", root / f"stage{stage}.json", "--exp_name", "fine"]
    assert warm.run(root / "said", *config, "train.max_steps=1", *overrides) == 0
    log = (root / "runs" / "fine" / "log.txt").read_text()
    return float(re.search(r"step 0: valid loss ([\d.e-]+)", log)[1])


@pytest.fixture
def fine(run, model, tmp_path):
    """Data, configs of both stages and an imported model."""
    tiny.write_data(tmp_path)
    run("import", "--from", "diffusers", "--to", tmp_path / "imported", model / "exported")
    for stage in (1, 2):
        tiny.write_config(tmp_path, stage)
    return tmp_path


def valid_mels(root: Path) -> tuple[list[dict], torch.Tensor]:
    """The validation records and their mels [B, 1, n_mel, frames]."""
    folder = root / "data" / "Tiny"
    records = json.loads((folder / "valid.json").read_text())
    paths = [folder / "mel" / f"{record['Uid']}.npy" for record in records]
    mels = np.stack([read_segment(path, tiny.FRAMES) for path in paths])[:, None]
    return records, torch.from_numpy(mels)


@torch.no_grad()
def test_fine_tuning_a_vae_starts_at_the_source_s_loss(fine, model):
    loss = fine_tune(
        fine, 1, f"train.init_from={fine}/imported/vae",
        "model.autoencoderkl.attention=true", "model.autoencoderkl.ch_mult=[1, 2]",
    )  # fmt: skip
    source = AutoencoderKL.from_pretrained(model / "exported" / "vae")
    _, mels = valid_mels(fine)
    rebuilt = source.decode(source.encode(mels).latent_dist.mode()).sample
    assert loss == pytest.approx((rebuilt - mels).abs().mean().item(), rel=1e-3)


@torch.no_grad()
def test_fine_tuning_a_unet_starts_at_the_source_s_loss(fine, model):
    loss = fine_tune(
        fine, 2, f"train.init_from={fine}/imported",
        f"model.autoencoder_path={fine}/imported/vae",
        f"model.text_encoder.pretrained={fine}/imported/text_encoder",
    )  # fmt: skip
    parts = model / "exported"
    vae = AutoencoderKL.from_pretrained(parts / "vae")
    unet = UNet2DConditionModel.from_pretrained(parts / "unet")
    schedule = DDPMScheduler.from_pretrained(parts / "scheduler")
    text = TextEncoder.from_pretrained(str(fine / "imported" / "text_encoder"), 12)
    records, mels = valid_mels(fine)
    posterior = vae.encode(mels).latent_dist
    errors = []
    for number, record in enumerate(records):  # each clip's random numbers are its own
        random = generator("cpu", 12345, "validation", number)
        timesteps = (1000 * torch.rand(1, generator=random)).long()
        shape = (1, *posterior.mean.shape[1:])
        spread, noise = (torch.randn(shape, generator=random) for _ in range(2))
        latent = posterior.mean[[number]] + posterior.std[[number]] * spread
        noisy = schedule.add_noise(latent * vae.config.scaling_factor, noise, timesteps)
        states, mask = text.encode([record["Caption"]])
        prediction = unet(noisy, timesteps, states, encoder_attention_mask=mask).sample
        errors.append((prediction - noise).square().mean())
    assert loss == pytest.approx(torch.stack(errors).mean().item(), rel=2e-3)
