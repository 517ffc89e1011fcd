"""A layer that is taught what is where, and a model that starts from parts of another."""

import pytest
import torch

from tests.training.test_diffusion_module import batch_of, tiny
from vdm.conditioning.text import WordTextEncoder
from vdm.models.conv_shell import ShellOptions
from vdm.models.dit import VideoDiT
from vdm.pretrained.layout import write_folder
from vdm.training.alignment import Alignment
from vdm.training.sources import Start

pytestmark = pytest.mark.filterwarnings("ignore:.*self.log.*")


def aligned(layer="blocks.0", **changes):
    options = {"dim": 32, "num_maps": 5, "patch_size": (1, 2, 2), **changes}
    return tiny(alignment=Alignment(layer, **options))


def mapped(count):
    batch = batch_of(count)
    batch["maps"] = batch["latents"][:, [0, 1, 0, 1, 0]].abs()
    return batch


def test_the_layer_learns_the_maps_and_later_ones_are_left_to_the_prediction():
    module, batch, logged = aligned(), mapped(6), {}
    module.log = lambda name, value, **_: logged.setdefault(name, []).append(float(value))
    optimizer = module.optimizer_plan.optimizer(module)
    for step in range(60):
        optimizer.zero_grad()
        module.training_step(batch, step).backward()
        optimizer.step()
    errors = logged["train/maps"]
    assert sum(errors[-5:]) < 0.7 * sum(errors[:5])
    with module.alignment.listening(module.network) as heard:
        module.loss(module.network, batch["latents"], *conditions(module, batch))
    gradients = torch.autograd.grad(
        module.alignment(heard[0], batch["maps"]), module.network.parameters(), allow_unused=True
    )
    names = [name for name, _ in module.network.named_parameters()]
    reached = {name for name, g in zip(names, gradients, strict=True) if g is not None}
    assert any(name.startswith("blocks.0.") for name in reached)
    assert not any(name.startswith("blocks.1.") for name in reached)


def conditions(module, batch):
    cond = module.conditioning(batch["latents"], batch["caption"], "train", range(6))
    return cond, torch.randn_like(batch["latents"]), torch.full((6,), 0.4)


def test_the_loss_is_the_weighted_sum_and_validation_is_that_of_the_prediction_alone():
    batch, logged = mapped(3), {}
    plain, taught = tiny(), aligned(weight=0.25)
    taught.network.load_state_dict(plain.network.state_dict())
    taught.text_encoder.load_state_dict(plain.text_encoder.state_dict())
    for module in (plain, taught):
        module.log = lambda name, value, **_: logged.update({name: torch.as_tensor(value).item()})
    total = taught.training_step(batch, 0).item()
    assert total == pytest.approx(logged["train/loss"] + 0.25 * logged["train/maps"])
    assert plain.training_step(batch, 0).item() == pytest.approx(logged["train/loss"])
    results = []
    for module in (plain, taught):
        module.validation_step(batch, 0)
        results.append(logged["val/loss"])
    assert results[0] == results[1]


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"layer='blocks.7'.*does not have; e.g. 'blocks.1"):
        aligned("blocks.7").training_step(mapped(2), 0)
    with pytest.raises(ValueError, match=r"from blocks.0, expected tokens \(b, t, h, w, 16\)"):
        aligned(dim=16).training_step(mapped(2), 0)
    with pytest.raises(ValueError, match="expected data with maps"):
        aligned().training_step(batch_of(2), 0)
    with pytest.raises(ValueError, match=r"got maps of shape \(2, 5, 3, 4, 6\), expected \(2, 4"):
        aligned(num_maps=4).training_step(mapped(2), 0)


def test_a_model_starts_from_the_parts_of_another_that_fit(tmp_path):
    trained = tiny()
    write_folder(trained.parts(), tmp_path / "trained")
    arguments = {"dim": 32, "depth": 2, "num_heads": 2, "text_dim": 16}
    shell = ShellOptions(width=4, num_groups=2)
    new = VideoDiT(2, **arguments, shell=shell)
    fresh = {name: value.clone() for name, value in new.state_dict().items()}
    start = Start(str(tmp_path / "trained"), ["patch_embed", "final.linear", "shell"])
    module = tiny(network=new, start=start, text_encoder=WordTextEncoder(16, 1, 2))
    for name, value in module.network.state_dict().items():
        is_new = name.startswith(("patch_embed", "final.linear", "shell"))
        expected = fresh[name] if is_new else trained.network.state_dict()[name]
        assert torch.equal(value, expected), name
    assert all(parameter.requires_grad for parameter in module.network.parameters())
    assert module.settings()["start"] is None
    with pytest.raises(ValueError, match="shell"):
        tiny(network=VideoDiT(2, **arguments, shell=shell), start=Start(start.source, []))
    with pytest.raises(
        ValueError, match=r"new='patch_embd', which names nothing; nearest 'patch_embed'"
    ):
        tiny(start=Start(start.source, ["patch_embd"]))
