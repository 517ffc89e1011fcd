"""Operations of a training step, and the steps that a budget pays for."""

from pathlib import Path

import pytest

from vdm.comparison.budget import StepCost, build_stage, count_step, steps_within
from vdm.comparison.experiment import Budget

CONFIGS = Path(__file__).parents[2] / "configs"
COST = StepCost(forward_flops=4000, backward_flops=8000, batch_size=4, num_parameters=7)
TINY_VAE = (
    "{class_path: VideoVAE, init_args: {latent_channels: 2, widths: [8, 8], "
    "level_strides: [[2, 2, 2]], encoder_blocks: [1, 1], decoder_blocks: [1, 1], patch_size: 2}}"
)
WORDS = [
    "--trainer.accelerator=cpu",
    "--data.shapes={num_train: 4, num_val: 2, size: 16, num_frames: 5}",
    "--model.network.pooled_dim=12",
    "--model.text_encoder.dim=12",
    "--model.text_encoder.depth=1",
    "--model.text_encoder.num_heads=2",
    f"--model.autoencoder={TINY_VAE}",
]
DIT = ["--model.network.dim=24", "--model.network.depth=1", "--model.network.num_heads=2"]


def test_a_budget_pays_for_the_nearest_number_of_steps():
    assert steps_within(Budget(flops=12000 * 80 + 500), COST) == 80
    assert steps_within(Budget(flops=12000 * 200.0), COST, share=0.25) == 50
    assert steps_within(Budget(samples=40), COST) == 10
    assert steps_within(Budget(steps=30), COST, share=0.5) == 15


def test_a_budget_that_steps_cannot_meet_within_one_percent_is_refused():
    with pytest.raises(ValueError, match="no whole number of steps comes within 1 %"):
        steps_within(Budget(flops=12000 * 3.4), COST)


def stage(recipe, tmp_path, *words):
    return build_stage([CONFIGS / f"{recipe}.yaml"], [*WORDS, *words], tmp_path / "run")


def test_operations_grow_with_the_batch_and_backward_is_twice_forward(tmp_path):
    module, data = stage("dit_s_shapes", tmp_path, *DIT, "--data.batch_size=2")
    small = count_step(module, data)
    data.batch_size = 6
    large = count_step(module, data)
    assert (small.batch_size, large.batch_size) == (2, 6)
    assert large.flops == pytest.approx(3 * small.flops)
    # The gradient of the first layer's input is not needed, so a little less than twice.
    assert 1.8 < small.backward_flops / small.forward_flops <= 2.05
    assert small.num_parameters == large.num_parameters


def test_keyframes_cost_less_than_whole_clips(tmp_path):
    keyframes = count_step(*stage("keyframes_s_shapes", tmp_path, *DIT))
    whole = count_step(*stage("interpolate_s_shapes", tmp_path, *DIT))
    assert keyframes.forward_flops < whole.forward_flops
    assert not list(tmp_path.iterdir())  # nothing was written


def test_only_diffusion_models_on_latents_are_counted(tmp_path):
    words = [f"--model.autoencoder={TINY_VAE}", *WORDS[:2]]
    with pytest.raises(TypeError, match="got AutoencoderModule on ShapesClips"):
        build_stage([CONFIGS / "vae_shapes.yaml"], words, tmp_path / "run")
