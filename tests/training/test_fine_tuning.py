"""Published models are trained on, and diffusers loads what comes out."""

import diffusers
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torchvision.transforms.functional import to_pil_image

import vdm
from tests.pretrained.test_diffusers_export import same_weights
from tests.pretrained.tiny_models import modelscope, svd
from vdm.cli import main
from vdm.conditioning.dropout import ConditionDropout
from vdm.diffusion.times import DiscreteUniform
from vdm.pretrained import export
from vdm.training.diffusion_module import DiffusionModule
from vdm.training.fine_tuning import SVD_TIMES, FineTuning
from vdm.training.optimizers import MuonPlan

pytestmark = pytest.mark.filterwarnings("ignore:.*self.log.*")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    svd().save_pretrained(place / "pictures")
    modelscope().save_pretrained(place / "words")
    return place


def recipe(model):
    """Two steps on small clips."""
    trainer = {
        "max_steps": 2,
        "max_epochs": -1,
        "accelerator": "cpu",
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "callbacks": [
            {"class_path": "EMA", "init_args": {"decay": 0.5}},
            {"class_path": "Checkpoints", "init_args": {"every_n_steps": 1}},
        ],
    }
    optimizer = {"class_path": "MuonPlan", "init_args": {"lr": 1e-3}}
    shapes = {"num_train": 4, "num_val": 2, "size": 16, "num_frames": 3}
    return {
        "trainer": trainer,
        "model": {
            "class_path": "FineTuning",
            "init_args": {"model": str(model), "optimizer": optimizer},
        },
        "data": {"class_path": "ShapesClips", "init_args": {"batch_size": 2, "shapes": shapes}},
    }


def test_a_run_from_published_weights_goes_back_to_diffusers(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(folders / "pictures")))
    assert main(["fit", "--config", "recipe.yaml", "--output", "run"]) == 0
    assert main(["convert", "run", "back", "--layout", "diffusers"]) == 0
    again = diffusers.StableVideoDiffusionPipeline.from_pretrained("back")
    again.set_progress_bar_config(disable=True)

    before = diffusers.StableVideoDiffusionPipeline.from_pretrained(folders / "pictures")
    for part in ("vae", "image_encoder"):
        state = getattr(before, part).state_dict()
        found = getattr(again, part).state_dict()
        assert all(torch.equal(value, state[key]) for key, value in found.items()), part
    was, now = before.unet.state_dict(), again.unet.state_dict()
    changed = [key for key in was if not torch.equal(was[key], now[key])]
    assert len(changed) > 0.9 * len(was)
    final = load_file("run/final.safetensors")
    assert torch.equal(now["conv_in.weight"], final["ema.network.embed.weight"])
    assert not torch.equal(now["conv_in.weight"], final["raw.network.embed.weight"])

    checkpoint = max((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    (folders / "pictures").rename(folders / "gone")  # what is trained needs its source no longer
    module = FineTuning.load_from_checkpoint(checkpoint)
    (folders / "gone").rename(folders / "pictures")
    assert torch.equal(module.network.embed.weight, now["conv_in.weight"])

    ours = vdm.load("run")
    assert ours.parts.given == vdm.load(folders / "pictures").parts.given
    torch.manual_seed(0)
    picture, noise = to_pil_image(torch.rand(3, 16, 16)), torch.randn(1, 4, 3, 8, 8)
    common = {"num_frames": 3, "height": 16, "width": 16}
    made = again(
        picture,
        **common,
        num_inference_steps=2,
        noise_aug_strength=0.0,
        latents=noise.transpose(1, 2),
        output_type="pt",
    ).frames.transpose(1, 2)
    told = {"noise_aug": 0.0, "fps": 7, "steps": 2, "progress": False}
    clip = ours(image=picture, **common, noise=noise, **told)
    assert (clip.frames - made).abs().max() < 1e-4


def test_three_lines_in_python(folders, tmp_path):
    module = FineTuning(str(folders / "words"), MuonPlan(lr=1e-2))
    optimizer = module.optimizer_plan.optimizer(module)
    frozen = [p for part in (module.text_encoder, module.autoencoder) for p in part.parameters()]
    assert not any(parameter.requires_grad for parameter in frozen)
    module.train()
    assert module.network.training
    assert not module.text_encoder.training
    video = 2 * torch.rand(2, 3, 3, 16, 16) - 1
    module.log = lambda *_, **__: None
    module.training_step({"video": video, "caption": ["a cat", "dogs run"]}, 0).backward()
    assert all(parameter.grad is not None for parameter in module.network.parameters())
    optimizer.step()
    export(module.parts(), tmp_path / "back")
    again = diffusers.TextToVideoSDPipeline.from_pretrained(tmp_path / "back")
    before = diffusers.TextToVideoSDPipeline.from_pretrained(folders / "words")
    with pytest.raises(AssertionError, match="unet"):
        same_weights(again, before)
    before.unet = again.unet
    same_weights(again, before)


def test_the_rules_are_those_of_the_model(folders):
    words = FineTuning(str(folders / "words"), MuonPlan(lr=1e-2))
    assert words.loss.times == DiscreteUniform(1000)
    assert words.parts().schedule == vdm.load(folders / "words").schedule
    pictures = FineTuning(str(folders / "pictures"), MuonPlan(lr=1e-2), seed=3, name="mine")
    assert pictures.loss.times == SVD_TIMES
    assert pictures.parts().name == "mine"
    assert pictures.parts().defaults.guidance_scale == (1.0, 3.0)


@torch.no_grad()
def test_a_picture_is_told_as_the_network_was_trained(folders):
    module = FineTuning(str(folders / "pictures"), MuonPlan(lr=1e-2), dropout=ConditionDropout(0.5))
    video, keys = 2 * torch.rand(64, 3, 3, 16, 16) - 1, list(range(64))
    x0 = module.latents({"video": video})
    asked = {"video": video, "fps": torch.full((64,), 7.0)}
    cond = module.conditioning(x0, [""] * 64, "train", keys, asked)
    assert (cond.fps == 6).all()
    assert (cond.motion_bucket == 127).all()
    left_out = (cond.image == 0).flatten(1).all(1)
    assert torch.equal(left_out, (cond.given == 0).flatten(1).all(1))
    assert 16 < left_out.sum() < 48
    raw, _ = module.autoencoder.encode_moments(video[:, :, :1])
    kept = cond.given[~left_out]
    assert torch.equal(kept[:, :, 0], kept[:, :, 2])  # the same beside every frame
    error = (kept[:, :, 0] - raw[~left_out, :, 0]).norm() / raw[~left_out].norm()
    assert 0 < error < 0.5
    assert cond.noise_aug.log().mean() == pytest.approx(-3.0, abs=0.3)
    always = module.conditioning(x0, [""] * 64, "val", keys, asked)
    assert not (always.image == 0).flatten(1).all(1).any()
    with pytest.raises(ValueError, match="got clips as latents alone, expected video"):
        module.conditioning(x0, [""] * 64, "train", keys, {"latents": x0})


def test_what_cannot_be_trained_on_so_is_refused(folders):
    module = FineTuning(str(folders / "pictures"), MuonPlan(lr=1e-2))
    settings = {"network": module.network, "loss": module.loss, "optimizer": MuonPlan(lr=1e-2)}
    with pytest.raises(ValueError, match="expected an autoencoder and no given frames"):
        DiffusionModule(**settings, picture=module.picture)
