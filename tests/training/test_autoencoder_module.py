"""The autoencoder learns, its judge learns against it, its latents get unit variance."""

import pytest
import torch

from vdm.autoencoder.discriminator import VideoDiscriminator
from vdm.autoencoder.losses import AdversarialLoss, AutoencoderLoss
from vdm.autoencoder.vae import VideoVAE
from vdm.pretrained.layout import write_folder
from vdm.training.autoencoder_module import AutoencoderModule
from vdm.training.optimizers import AdamWPlan, MuonPlan

pytestmark = pytest.mark.filterwarnings("ignore:.*self.log.*")


def tiny(adversarial=None, optimizer=None, **changes):
    vae = VideoVAE(
        latent_channels=4,
        widths=(16, 24),
        level_strides=((2, 2, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        patch_size=2,
    )
    return AutoencoderModule(
        vae,
        AutoencoderLoss(kl_weight=1e-4),
        optimizer or AdamWPlan(lr=5e-3),
        adversarial=adversarial,
        **changes,
    )


def clips(count):
    frames = torch.stack([torch.roll(torch.eye(8), k, 1) for k in range(4)])
    video = torch.stack([frames.roll(k, 2) for k in range(count)]) * 2 - 1
    return {"video": video.unsqueeze(1).expand(-1, 3, -1, -1, -1).contiguous()}


class Data:
    """Clips as a data module has them."""

    batch_size = 3

    def train_dataset(self):
        return [{"video": video} for video in clips(7)["video"]]


@pytest.mark.parametrize("plan", [AdamWPlan(lr=5e-3), MuonPlan(lr=5e-3, outer=())])
def test_it_overfits_one_clip(plan):
    module, batch = tiny(optimizer=plan), clips(1)
    optimizer = plan.optimizer(module)
    losses = []
    for step in range(120):
        optimizer.zero_grad()
        loss = module.training_step(batch, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_a_draw_from_the_posterior_depends_on_the_position_alone():
    module, batch = tiny(), clips(2)
    first = module.training_step(batch, 0)
    assert torch.equal(first, module.training_step(batch, 0))
    assert not torch.equal(first, module.training_step(batch, 1))


def test_each_network_gets_the_gradient_of_its_own_loss():
    judge = AdversarialLoss(VideoDiscriminator(width=4, depth=1), weight=0.3)
    module, batch = tiny(judge), clips(2)
    seen = {}
    module.log_train = seen.update
    module.training_step(batch, 0).backward()
    judged = [p.grad.clone() for p in judge.parameters()]
    coded = module.autoencoder.decoder[0].weight.grad.clone()
    assert {"generator", "discriminator"} <= set(seen)

    module.zero_grad()
    module.training_step(batch, 0)
    seen["discriminator"].backward()
    for parameter, expected in zip(judge.parameters(), judged, strict=True):
        assert torch.allclose(parameter.grad, expected)
    assert module.autoencoder.decoder[0].weight.grad is None

    module.training_step(batch, 0)
    (seen["loss"] - seen["discriminator"]).backward()
    assert torch.allclose(module.autoencoder.decoder[0].weight.grad, coded)
    assert all(parameter.requires_grad for parameter in judge.parameters())


def test_the_judge_waits_for_its_step():
    judge = AdversarialLoss(VideoDiscriminator(width=4, depth=1), start_step=5)
    module, seen = tiny(judge), {}
    module.log_train = seen.update
    module.training_step(clips(1), 0)
    assert "generator" not in seen


def test_latents_of_training_clips_get_unit_variance():
    module, data = tiny(statistics_clips=7), Data()
    with torch.no_grad():
        module.autoencoder.encoder[-1].bias[:4] = torch.tensor([1.0, -2.0, 3.0, 0.5])
    module.finish(data)
    latents = module.predict_step(clips(7), 0)
    assert torch.allclose(latents.mean((0, 2, 3, 4)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3, 4)), torch.ones(4), atol=0.02)


def test_fewer_clips_can_be_measured():
    one, all_ = tiny(statistics_clips=1), tiny(statistics_clips=100)
    all_.load_state_dict(one.state_dict())
    one.finish(Data())
    all_.finish(Data())
    assert not torch.equal(one.autoencoder.latents.std, all_.autoencoder.latents.std)
    with pytest.raises(ValueError, match="got statistics_clips=0"):
        tiny(statistics_clips=0)


def test_a_decoder_trained_alone_leaves_the_latents_as_they_are(tmp_path):
    trained = tiny(statistics_clips=7)
    trained.finish(Data())
    folder = str(write_folder(trained.parts(), tmp_path / "model"))
    module, batch = tiny(start=folder, train_encoder=False), clips(2)
    before = module.predict_step(batch, 0)
    assert torch.equal(before, trained.predict_step(batch, 0))
    decoded = module.autoencoder.decode(before)
    optimizer = module.optimizer_plan.optimizer(module)
    for step in range(2):
        module.training_step(batch, step).backward()
        optimizer.step()
    module.finish(Data())
    assert torch.equal(module.predict_step(batch, 0), before)
    assert not torch.equal(module.autoencoder.decode(before), decoded)
    assert module.settings()["start"] is None


def test_a_perfect_reconstruction_has_the_best_psnr(monkeypatch):
    module, seen = tiny(), {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: seen.__setitem__(name, value))
    batch = clips(2)
    monkeypatch.setattr(module.autoencoder, "decode_raw", lambda raw, num: batch["video"])
    module.validation_step(batch, 0)
    assert seen["val/psnr"] == 100
    assert seen["val/reconstruction"] == 0
    assert set(seen) == {"val/loss", "val/reconstruction", "val/kl", "val/psnr"}
