"""The terms of the autoencoder's loss."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vdm.autoencoder.discriminator import VideoDiscriminator
from vdm.autoencoder.losses import (
    AdversarialLoss,
    AutoencoderLoss,
    PerceptualLoss,
    VGGFeatures,
    kl_to_standard_normal,
)


def test_kl_agrees_with_torch_distributions():
    mean, logvar = torch.randn(2, 3, 5, 4, 6), torch.randn(2, 3, 5, 4, 6)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0, 1)).flatten(1).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, logvar), expected)


@pytest.mark.parametrize(("kind", "expected"), [("l2", 0.25), ("l1", 0.5)])
def test_reconstruction_and_kl_are_per_pixel_value(kind, expected):
    video = torch.zeros(2, 3, 5, 4, 6)
    mean, logvar = torch.ones(2, 2, 3, 2, 3), torch.zeros(2, 2, 3, 2, 3)
    loss, terms = AutoencoderLoss(kind, kl_weight=0.1)(video, video + 0.5, mean, logvar)
    kl = 0.5 * mean.numel() / video.numel()
    assert terms["reconstruction"].item() == pytest.approx(expected)
    assert terms["kl"].item() == pytest.approx(kl)
    assert loss.item() == pytest.approx(expected + 0.1 * kl)


def test_perceptual_loss_is_lpips_with_the_users_weights(tmp_path, monkeypatch):
    vgg = pytest.importorskip("torchvision.models.vgg")
    lpips = pytest.importorskip("torchmetrics.image.lpip")
    backbone = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    # Without the classifier behind it, which is most of its weights.
    monkeypatch.setattr("torchvision.models.vgg16", lambda **_: SimpleNamespace(features=backbone))
    state = {f"features.{name}": value for name, value in backbone.state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    features = VGGFeatures(str(tmp_path / "vgg16.pth"))
    video, reconstruction = torch.rand(1, 3, 2, 32, 40) * 2 - 1, torch.rand(1, 3, 2, 32, 40) * 2 - 1
    loss, terms = AutoencoderLoss(perceptual=PerceptualLoss(features), perceptual_weight=2.0)(
        video, reconstruction, torch.zeros(1, 2, 1, 4, 5), torch.zeros(1, 2, 1, 4, 5)
    )
    from torchmetrics.functional.image import lpips as module

    reference = module._LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    for key, stage in enumerate(features.stages, start=1):
        getattr(reference.net, f"slice{key}").load_state_dict(
            dict(
                zip(
                    getattr(reference.net, f"slice{key}").state_dict(),
                    stage.state_dict().values(),
                    strict=True,
                )
            )
        )
    with torch.no_grad():
        frames = [clip.transpose(1, 2).flatten(0, 1) for clip in (video, reconstruction)]
        expected = reference(*frames).mean()
    assert lpips is not None
    torch.testing.assert_close(terms["perceptual"], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, terms["reconstruction"] + 2 * terms["perceptual"])


def test_a_missing_perceptual_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        VGGFeatures("nowhere.pth")


def test_the_discriminator_learns_to_tell_clips_apart_and_the_decoder_is_pushed_towards_real():
    torch.manual_seed(0)
    loss = AdversarialLoss(VideoDiscriminator(width=4, depth=2), weight=0.5)
    real, fake = torch.rand(2, 3, 5, 16, 24) * 0.2 + 0.5, torch.rand(2, 3, 5, 16, 24) * 0.2 - 0.5
    optimizer = torch.optim.Adam(loss.discriminator.parameters(), lr=0.01)
    start = loss.discriminator_loss(real, fake).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss.discriminator_loss(real, fake).backward()
        optimizer.step()
    assert loss.discriminator_loss(real, fake).item() < 0.3 * start
    assert loss.generator_loss(real) < loss.generator_loss(fake)
    fake.requires_grad_()
    loss.generator_loss(fake).backward()
    assert fake.grad.mean() < 0, "gradient descent brightens the fake towards the real"


def test_the_discriminator_loss_does_not_reach_the_decoder():
    loss = AdversarialLoss(VideoDiscriminator(width=4, depth=1))
    fake = torch.rand(1, 3, 5, 16, 24, requires_grad=True)
    loss.discriminator_loss(torch.rand(1, 3, 5, 16, 24), fake).backward()
    assert fake.grad is None
