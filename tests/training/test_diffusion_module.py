"""The network learns, and what it learns from does not depend on batches."""

import warnings

import pytest
import torch

from vdm.autoencoder.vae import VideoVAE
from vdm.conditioning.dropout import ConditionDropout
from vdm.conditioning.frames import FirstFrames, Keyframes, Mixture, NoFrames, Shown
from vdm.conditioning.given import Hint, Masked, Nearest, NoiseAugmentation
from vdm.conditioning.labels import CaptionLabels
from vdm.conditioning.text import WordTextEncoder
from vdm.diffusion import DenoisingLoss, LinearPath, Velocity
from vdm.diffusion.frame_times import CleanPast, IndependentTimes, MixedTimes
from vdm.layers.factorization import Spatial, Temporal
from vdm.models.dit import VideoDiT
from vdm.pipelines.generate import Generator
from vdm.pretrained.layout import read_folder, write_folder
from vdm.pretrained.parts import Defaults
from vdm.training.diffusion_module import DiffusionModule
from vdm.training.optimizers import MuonPlan

pytestmark = pytest.mark.filterwarnings("ignore:.*self.log.*")
CAPTIONS = ["a red circle moves left.", "a blue star grows.", "a green bar spins clockwise."]


def tiny(**changes):
    arguments = {
        "network": VideoDiT(
            in_channels=2, dim=32, depth=2, num_heads=2, text_dim=16, frame_conditioning=True
        ),
        "loss": DenoisingLoss(LinearPath(), Velocity()),
        "optimizer": MuonPlan(lr=5e-3),
        "text_encoder": WordTextEncoder(dim=16, depth=1, num_heads=2),
        "num_bins": 3,
        **changes,
    }
    return DiffusionModule(**arguments)


def batch_of(count):
    latents = torch.randn(count, 2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    captions = [CAPTIONS[k % 3] for k in range(count)]
    return {"latents": latents, "caption": captions, "index": torch.arange(count)}


def validate(module, batches):
    """Mean and weight of everything that validation logs."""
    totals = {}

    def log(name, value, batch_size, **_):
        total, weight = totals.get(name, (0.0, 0))
        totals[name] = (total + float(value) * batch_size, weight + batch_size)

    module.log = log
    with torch.no_grad():
        for number, batch in enumerate(batches):
            module.validation_step(batch, number)
    return {name: (total / weight, weight) for name, (total, weight) in totals.items()}


def select(batch, index):
    return {
        "latents": batch["latents"][index],
        "caption": [batch["caption"][k] for k in index],
        "index": batch["index"][index],
        **{name: batch[name][index] for name in ("fps", "hint") if name in batch},
    }


def test_it_overfits_one_clip():
    module, batch = tiny(), batch_of(1)
    batch["index"] += 1  # validated at a noise level in the middle
    optimizer = module.optimizer_plan.optimizer(module)
    before = validate(module, [batch])["val/loss"][0]
    module.log = lambda *_, **__: None
    many = select(batch, [0] * 8)
    for step in range(100):
        optimizer.zero_grad()
        module.training_step(many, step).backward()
        optimizer.step()
    assert validate(module, [batch])["val/loss"][0] < 0.3 * before


@pytest.mark.parametrize("frames", [None, Mixture([NoFrames(), FirstFrames()], [0.5, 0.5])])
def test_the_validation_table_does_not_depend_on_batches_or_on_the_seed_of_the_run(frames):
    module = tiny(frames=frames).eval()
    torch.nn.init.normal_(module.network.final.linear.weight)
    batch = batch_of(5)
    whole = validate(module, [batch])
    parts = validate(module, [select(batch, [4, 1]), select(batch, [0]), select(batch, [2, 3])])
    module.seed = 99
    assert whole.keys() == {"val/loss", "val/loss_bin_0", "val/loss_bin_1", "val/loss_bin_2"}
    for name, (mean, weight) in whole.items():
        assert parts[name][0] == pytest.approx(mean, rel=1e-5)
        assert parts[name][1] == weight
        assert validate(module, [batch])[name][0] == mean
    assert whole["val/loss_bin_0"][1] == 2


def test_a_training_sample_draws_the_same_in_any_batch():
    module, batch = tiny(frames=FirstFrames()), batch_of(4)
    torch.nn.init.normal_(module.network.final.linear.weight)
    seen = []
    module.log = lambda *_, **__: None
    object.__setattr__(module, "loss", Spy(module.loss, seen))
    module.training_step(batch, 1)  # positions 4 to 7
    module.training_step(select(batch, [2, 3]), 3)  # positions 6 and 7
    (eps, t, mask), (eps2, t2, mask2) = seen
    assert torch.equal(eps[2:], eps2)
    assert torch.equal(t[2:], t2)
    assert torch.equal(mask[2:], mask2)


@pytest.mark.parametrize("rule", [IndependentTimes(), CleanPast()], ids=str)
def test_times_per_frame_depend_on_the_place_in_the_run_alone(rule):
    loss = DenoisingLoss(LinearPath(), Velocity(), frame_times=rule)
    module, batch = tiny(loss=loss), batch_of(4)
    seen = []
    module.log = lambda *_, **__: None
    object.__setattr__(module, "loss", Spy(module.loss, seen))
    module.training_step(batch, 1)
    module.training_step(select(batch, [2, 3]), 3)
    module.training_step(batch, 2)
    (_, t, _), (_, t2, _), (_, later, _) = seen
    assert t.shape == (4, 3)
    assert torch.equal(t[2:], t2)
    assert not torch.equal(t, later)
    assert not torch.equal(t, tiny(loss=loss, seed=1).times(3, [4, 5, 6, 7]))


def test_it_learns_one_clip_with_times_per_frame():
    rules = MixedTimes([CleanPast(), IndependentTimes()], [1, 1])
    network = VideoDiT(
        2, 32, 2, 2, text_dim=16, factorization=[Spatial(), Temporal(is_causal=True, window=2)]
    )
    loss = DenoisingLoss(LinearPath(), Velocity(), frame_times=rules)
    module, batch = tiny(network=network, loss=loss), batch_of(1)
    batch["index"] += 1
    optimizer = module.optimizer_plan.optimizer(module)
    before = validate(module, [batch])["val/loss"][0]
    module.log = lambda *_, **__: None
    many = select(batch, [0] * 8)
    for step in range(60):
        optimizer.zero_grad()
        module.training_step(many, step).backward()
        optimizer.step()
    assert validate(module, [batch])["val/loss"][0] < 0.5 * before


class Spy:
    """Looks at what the loss is called with."""

    def __init__(self, loss, seen):
        self.loss, self.seen = loss, seen
        self.sample_times = loss.sample_times
        self.sample_frame_times, self.frame_times = loss.sample_frame_times, loss.frame_times

    def __call__(self, network, x0, cond, eps, t):
        self.seen.append((eps, t, cond.given_mask))
        return self.loss(network, x0, cond, eps, t)


def test_captions_are_left_out_as_often_as_asked():
    def texts(probability):
        module = tiny(dropout=ConditionDropout(probability))
        seen = []
        module.log = lambda *_, **__: None
        forward = module.text_encoder.forward
        module.text_encoder.forward = lambda prompts: seen.extend(prompts) or forward(prompts)
        for step in range(8):
            module.training_step(batch_of(4), step)
        return seen

    assert all(texts(0.0))
    assert not any(texts(1.0))
    assert 4 < sum(not text for text in texts(0.5)) < 28


def test_given_frames_reach_the_network_and_do_not_count():
    module, batch = tiny(frames=FirstFrames()), batch_of(2)
    cond = module.conditioning(batch["latents"], batch["caption"], "train", [0, 1])
    assert cond.given_mask[:, :, 0].eq(1).all()
    assert cond.given_mask[:, :, 1:].eq(0).all()
    assert torch.equal(cond.given[:, :, 0], batch["latents"][:, :, 0])
    assert cond.pooled_text is None  # this network does not read it


def told(*scalars):
    return VideoDiT(2, dim=32, depth=1, num_heads=2, text_dim=16, scalars=scalars)


@pytest.mark.parametrize("fill", [Masked(), Nearest()])
def test_keyframes_are_shown_as_the_rule_says_with_noise_that_is_told(fill):
    frames = Shown(Keyframes(2), fill, NoiseAugmentation(0.5))
    module, batch = tiny(frames=frames, network=told("noise_aug", "fps")), batch_of(4)
    batch["fps"] = torch.full((4,), 4.0)
    x0, captions = batch["latents"], batch["caption"]
    cond = module.conditioning(x0, captions, "train", [0, 1, 2, 3], batch)
    assert torch.equal(cond.fps, batch["fps"])
    assert cond.noise_aug.unique().numel() == 4
    assert cond.noise_aug.max() < 0.5
    noise = (cond.given - x0)[:, :, ::2].flatten(1).std(dim=1)
    torch.testing.assert_close(noise, cond.noise_aug, rtol=0.5, atol=0.02)
    gap = torch.zeros_like(x0[:, :, 1]) if fill == Masked() else cond.given[:, :, 0]
    assert torch.equal(cond.given[:, :, 1], gap)
    some = select(batch, [2, 3])
    alone = module.conditioning(some["latents"], some["caption"], "train", [2, 3], some)
    assert torch.equal(alone.given, cond.given[2:])
    assert torch.equal(alone.noise_aug, cond.noise_aug[2:])
    assert module.parts().given == frames.shown
    assert tiny(frames=Keyframes(2)).parts().given is None


def test_hints_are_shown_whole_and_never_the_clip_itself():
    module = tiny(frames=Shown(NoFrames(), Hint()))
    batch = batch_of(2)
    with pytest.raises(ValueError, match="got no hint in the batch and fill Hint"):
        module.conditioning(batch["latents"], batch["caption"], "train", [0, 1], batch)
    batch["hint"] = batch["latents"] + 1
    cond = module.conditioning(batch["latents"], batch["caption"], "train", [0, 1], batch)
    assert torch.equal(cond.given, batch["hint"])
    assert not cond.given_mask.any()


def test_video_is_encoded_by_the_autoencoder_that_stays_as_it_is():
    vae = VideoVAE(
        latent_channels=2,
        widths=(6, 8),
        level_strides=((2, 2, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        patch_size=2,
    )
    module = tiny(autoencoder=vae).train()
    assert not vae.training
    video = torch.rand(2, 3, 5, 8, 16) * 2 - 1
    assert torch.equal(module.latents({"video": video}), vae.encode(video))
    module.log = lambda *_, **__: None
    batch = {"video": video, "caption": CAPTIONS[:2], "index": torch.arange(2)}
    module.training_step(batch, 0).backward()
    assert all(p.grad is None for p in vae.parameters())
    assert module.parts().autoencoder is vae


def test_without_an_autoencoder_latents_are_pixels():
    video = torch.rand(2, 3, 5, 8, 16)
    assert torch.equal(tiny().latents({"video": video}), video)


def test_predictions_are_estimates_of_the_clean_latents():
    batch = batch_of(2)
    module = tiny().eval()
    with torch.no_grad():
        assert module.predict_step(batch, 0).shape == batch["latents"].shape


def test_the_description_builds_the_same_parts():
    from vdm.pretrained.parts import parts_from

    module = tiny(defaults=Defaults(steps=7), name="tiny")
    card = {k: v for k, v in module.card().items() if k != "format"}
    parts = parts_from(card, "card")
    assert parts.defaults.steps == 7
    assert parts.name == "tiny"
    assert parts.describe() == module.parts().describe()


def test_a_shape_that_the_data_decide_is_refused():
    with pytest.raises(ValueError, match=r"got defaults\.num_frames=9, nothing reads it"):
        tiny(defaults=Defaults(num_frames=9))


def test_losses_need_at_least_one_bin():
    with pytest.raises(ValueError, match="got num_bins=0, expected at least 1"):
        tiny(num_bins=0)


def test_training_goes_on_from_a_trained_model(tmp_path):
    trained = tiny()
    torch.nn.init.normal_(trained.network.final.linear.weight)
    trained.text_encoder.token_embed.requires_grad_(False)
    folder = str(write_folder(trained.parts(), tmp_path / "model"))
    text_encoder = WordTextEncoder(dim=16, depth=1, num_heads=2)
    text_encoder.token_embed.requires_grad_(False)
    module = tiny(start=folder, text_encoder=text_encoder)
    assert validate(module, [batch_of(5)]) == validate(trained, [batch_of(5)])
    assert module.training
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    assert frozen == ["text_encoder.token_embed.weight"]
    assert module.settings()["start"] is None
    with pytest.raises(ValueError, match=r"network: patch_embed\.weight has shape"):
        tiny(start=folder, network=VideoDiT(2, dim=24, depth=2, num_heads=2, text_dim=16))
    bare = str(write_folder(tiny(text_encoder=None).parts(), tmp_path / "bare"))
    with pytest.raises(ValueError, match="which has no text_encoder"):
        tiny(start=bare)


def test_a_network_that_is_told_more_numbers_goes_on_from_one_that_is_not(tmp_path):
    trained = tiny(network=told("fps"))
    folder = str(write_folder(trained.parts(), tmp_path / "model"))
    network = told("fps", "noise_aug")
    new = network.scalar_embeds["noise_aug"].fc1.weight.clone()
    tiny(network=network, start=folder)
    assert torch.equal(network.patch_embed.weight, trained.network.patch_embed.weight)
    assert torch.equal(network.scalar_embeds["noise_aug"].fc1.weight, new)
    with pytest.raises(ValueError, match=r"VideoDiT has no scalar_embeds\.fps"):
        tiny(network=told("noise_aug"), start=folder)


def test_a_network_can_be_conditioned_on_classes(tmp_path):
    def net(num_labels):
        return VideoDiT(in_channels=2, dim=32, depth=1, num_heads=2, num_labels=num_labels)

    never = ConditionDropout(probability=0.0)
    module = tiny(network=net(12), text_encoder=CaptionLabels("motion"), dropout=never)
    torch.nn.init.normal_(module.network.final.linear.weight)
    torch.nn.init.normal_(module.network.shared_modulation.weight, std=0.1)
    module.log = lambda *_, **__: None
    module.training_step(batch_of(4), 0).backward()
    used = module.network.label_embed.table.weight.grad.abs().sum(1) > 0
    assert used.sum() == 3  # the motions of the captions
    read = read_folder(write_folder(module.parts(), tmp_path / "model"))
    generate = Generator(read)
    settings = {"steps": 2, "num_frames": 3, "height": 4, "width": 6, "output": "latents"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clips = [
            generate(p, seed=0, guidance_scale=2, **settings) for p in ("left", "up", CAPTIONS[0])
        ]
    assert not torch.equal(clips[0], clips[1])
    assert torch.equal(clips[0], clips[2])
    for wrong in ({"network": net(7)}, {"network": net(None)}):
        with pytest.raises(ValueError, match="expected 12: as many as the encoder"):
            tiny(text_encoder=CaptionLabels("motion"), **wrong)


def test_layers_are_compiled_if_asked_for(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    tiny()
    assert not compiled
    module = tiny(compile=True)
    assert compiled == list(module.network.blocks)
