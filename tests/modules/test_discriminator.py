from itertools import pairwise

import torch

from modules.discriminator import PatchDiscriminator


def test_logits_of_a_clip_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=16).train()
    mel = torch.randn(3, 1, 80, 64)
    loud = torch.cat([mel[:1], 100.0 * mel[1:]])
    torch.testing.assert_close(discriminator(loud)[:1], discriminator(mel[:1]))


def test_one_logit_a_patch_and_the_size_that_pix2pix_gives():
    discriminator = PatchDiscriminator()
    assert discriminator(torch.randn(2, 1, 80, 624)).shape == (2, 1, 8, 76)
    # pix2pix's PatchGAN for one channel, with biases and an affine norm on the inner layers.
    widths = [1, 64, 128, 256, 512, 1]
    norms = 2 * (128 + 256 + 512)
    convolutions = sum(16 * a * b + b for a, b in pairwise(widths))
    assert sum(p.numel() for p in discriminator.parameters()) == convolutions + norms


def test_a_patch_is_70_values_wide():
    discriminator = PatchDiscriminator(channels=8)
    for layer in discriminator.layers:  # the norm sees the whole mel, so it is left out here
        if isinstance(layer, torch.nn.GroupNorm):
            layer.forward = lambda x: x
    mel = torch.zeros(1, 1, 128, 128, requires_grad=True)
    discriminator(mel)[0, 0, 7, 7].backward()
    seen = mel.grad[0, 0].abs().sum(0).nonzero()
    assert seen.max() - seen.min() + 1 == 70


def test_weights_start_small():
    torch.manual_seed(0)
    weight = PatchDiscriminator().layers[2].weight
    assert abs(weight.std().item() - 0.02) < 0.001
    assert abs(weight.mean().item()) < 0.001
