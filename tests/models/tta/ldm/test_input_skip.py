"""An editor's way past its network."""

import copy
import dataclasses

import torch

from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.unet import UNet
from tests.gaussian import SCHEDULE
from tests.unets import SMALL, batch

EDITOR = dataclasses.replace(SMALL, in_channels=8, patch_size=2, input_skip=True)
FLOW = NoiseSchedule(dataclasses.replace(SCHEDULE, prediction_type="flow_prediction"))


def editor(gate: float) -> tuple[UNet, torch.Tensor, tuple]:
    """A new editor with the same gate everywhere, what it reads of odd sizes, and the rest."""
    torch.manual_seed(0)
    unet = UNet(EDITOR, FLOW)
    torch.nn.init.constant_(unet.input_skip.gate.bias, gate)
    read, _, *text = batch(EDITOR, (5, 7))
    return unet, read, (torch.tensor([30.0, 300.0, 999.0]), *text)


@torch.no_grad()
def test_what_stays_as_it_is_needs_no_network():
    for gate in (0.0, 1.0, 0.7):
        unet, read, given = editor(gate)
        wanted = FLOW.target_unchanged(read[:, :4], read[:, 4:], given[0])
        torch.testing.assert_close(unet(read, *given), gate * wanted)


@torch.no_grad()
def test_the_gate_says_what_is_edited():
    """For each value of a patch its own, of the network's last features."""
    unet, read, given = editor(0.0)
    for module in (unet.conv_out, unet.input_skip.gate):
        module.weight.normal_(0, 0.3)
    alone = copy.deepcopy(unet)
    alone.input_skip = None
    seen = []
    unet.input_skip.gate.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    found = unet(read, *given)
    gate = torch.nn.functional.pixel_shuffle(seen[0], 2)[:, :, :5, :7]
    assert gate.std() > 0.1
    wanted = FLOW.target_unchanged(read[:, :4], read[:, 4:], given[0])
    torch.testing.assert_close(found, alone(read, *given) + gate * wanted)


@torch.no_grad()
def test_what_goes_past_the_network_stays_exact_in_half_precision():
    unet, read, given = editor(1.0)
    wanted = FLOW.target_unchanged(read[:, :4], read[:, 4:], given[0])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(unet(read, *given), wanted)
    unet.set_precision(torch.bfloat16)
    torch.testing.assert_close(unet(read, *given), wanted)
