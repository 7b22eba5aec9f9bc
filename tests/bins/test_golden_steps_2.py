"""Stage 2: steps of the real program against the papers' equations in tests/reference.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import golden, warm

STEPS = 3
VELOCITY = "model.noise_scheduler.prediction_type=v_prediction"
FLOW = "model.noise_scheduler.prediction_type=flow_prediction"
FROZEN = "model.text_encoder.pretrained={place}/t5"
HALF_DROPPED = "model.caption_dropout=0.5"


@dataclass
class Case:
    """Settings, and what has to happen under them for the case to be worth its name."""

    changes: tuple[str, ...]
    happened: Callable[[object], bool]


CASES = {
    "noise, a text encoder that learns": Case(
        ("model.caption_dropout=0",),
        lambda r: not any(every(r, "dropped")) and max(every(r, "windows")) > 0,
    ),
    "noise, min-SNR, a frozen text encoder, half the captions dropped": Case(
        ("model.snr_gamma=5", FROZEN, HALF_DROPPED),
        lambda r: 0 < sum(every(r, "dropped")) < 4 * STEPS and min(every(r, "weights")) < 0.9,
    ),
    "velocity, half the captions dropped": Case(
        (VELOCITY, HALF_DROPPED), lambda r: 0 < sum(every(r, "dropped")) < 4 * STEPS
    ),
    "velocity, min-SNR, a frozen text encoder": Case(
        (VELOCITY, "model.snr_gamma=2", FROZEN), lambda r: min(every(r, "weights")) < 0.9
    ),
    "flow, half the captions dropped": Case(
        (FLOW, HALF_DROPPED),
        lambda r: max(every(r, "times")) - min(every(r, "times")) > 300,
    ),
    "flow, times nearer to noise": Case(
        (FLOW, "model.flow_times.mean=2", "model.flow_times.std=1.5"),
        lambda r: sorted(every(r, "times"))[len(every(r, "times")) // 2] > 800,
    ),
    "another schedule of noise": Case(
        ("model.noise_scheduler.beta_schedule=linear",), lambda r: r.alpha_bar[0] > 0.999
    ),
    "gradients clipped": Case(("train.grad_clip=0.5",), lambda r: min(r.adam.norms) > 1),
    "two micro-batches, warm-up, then a cosine": Case(
        (
            *("train.gradient_accumulation_steps=2", "train.warmup_steps=1"),
            *("train.lr_schedule=cosine", HALF_DROPPED),
        ),
        lambda r: r.seen[-1]["learning_rate"] == golden.TRAIN["adam"]["lr"] / 2,
    ),
}


def every(reference, name: str) -> list:
    """What was seen under a name in the clips of all steps."""
    return [value for seen in reference.seen for value in seen[name]]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data, a VAE, a frozen T5, and weights to start from."""
    root = tmp_path_factory.mktemp("golden2")
    golden.write_place(root)
    vae = golden.write_vae(root, golden.train(root, 1, "vae", *golden.STILL))
    path = f"model.autoencoder_path={vae}"
    still = golden.train(root, 2, "still", *golden.STILL, path)
    golden.write_start(root, still)
    captions = [caption for _, caption in golden.data_of(golden.config_of(still))[1]]
    golden.write_t5(root / "t5", captions)
    return root


def train_both(place: Path, name: str, steps: int, changes: tuple[str, ...]):
    """The run, the plain implementation after the same steps, and the weights before them."""
    settings = [change.format(place=place) for change in changes]
    settings += [f"train.max_steps={steps}", f"train.save_checkpoints_steps={steps}"]
    settings += [f"model.autoencoder_path={place}/vae", f"train.init_from={place}/start"]
    run = golden.train(place, 2, name, *settings)
    reference = golden.reference_2(place, run)
    began = golden.weights_2(reference, reference.adam.parameters)
    for step in range(steps):
        reference.step(step)
    return run, reference, began


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_papers(place, name):
    run, reference, began = train_both(place, name, STEPS, CASES[name].changes)
    assert CASES[name].happened(reference)
    expected = golden.weights_2(reference, reference.adam.parameters)
    found = golden.learnt_2(run, STEPS)
    # T5's embedding has two names in its file.
    assert found.keys() - expected.keys() <= {"text_encoder.model.encoder.embed_tokens.weight"}
    golden.assert_reached(found, expected, began)
    golden.assert_curves(run, reference.seen)


def test_steps_of_a_flow_map_also_resumed_by_two_processes(place):
    """Two steps by one process, and two more of the same run by two."""
    flow, log = golden.write_flow_start(place), place / "flow map.log"
    settings = [*golden.FLOW_MAP, f"train.init_from={flow}", HALF_DROPPED]
    settings += ["train.save_checkpoints_steps=2", "train.valid_interval=2", "train.random_seed=3"]
    run = golden.train(place, 2, "flow map", *settings, "train.max_steps=2")
    reference = golden.reference_flow_map(place, run)
    began = golden.weights_2(reference, reference.adam.parameters)
    arguments = ["--config", f"{place}/stage2.json", "--exp_name", "flow map", *settings]
    assert warm.run_together(log, 2, *arguments, "train.max_steps=4") == [0, 0], log.read_text()
    for step in range(4):
        reference.step(step)
    assert {0.0, 1.0, 1 / 32} <= {round(length, 6) for length in every(reference, "lengths")}
    expected = golden.weights_2(reference, reference.adam.parameters)
    golden.assert_reached(golden.learnt_2(run, 4), expected, began)
    golden.assert_curves(run, reference.seen)
    averaged = golden.weights_2(reference, reference.average.shadow)
    found = golden.for_inference_2(run, 4)
    golden.assert_reached({name: found[name] for name in averaged}, averaged, began)
    # It says what it is of, and refuses to go on with another teacher.
    log = place / "changed.log"
    weights = load_file(flow / "unet.safetensors")
    save_file({n: 2 * t for n, t in weights.items()}, flow / "unet.safetensors")
    assert warm.run(log, *arguments, "train.max_steps=6") == 2
    assert "its weights are not those that this run began with" in log.read_text()


@pytest.mark.parametrize("changes", [(), (FROZEN,)], ids=["learns", "frozen"])
def test_weights_for_inference_are_the_average_of_all_steps(place, changes, request):
    """Of five steps: four while the average warms up, and one at its own decay."""
    changes = (*changes, "train.ema_decay=0.3")
    run, reference, began = train_both(place, request.node.name, 5, changes)
    expected = golden.weights_2(reference, reference.average.shadow)
    golden.assert_reached(golden.for_inference_2(run, 5), expected, began)
