"""Every recipe parses, survives one shrunken step, and every overlay fits its recipe."""

from pathlib import Path

import pytest
import yaml

from vdm.conditioning.frames import Keyframes
from vdm.training.cli import build, main

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
TINY_VAE = (
    "{class_path: VideoVAE, init_args: {latent_channels: 2, widths: [8, 8], "
    "level_strides: [[2, 2, 2]], encoder_blocks: [1, 1], decoder_blocks: [1, 1], patch_size: 2}}"
)
ALWAYS = [
    "--trainer.max_steps=1",
    "--trainer.val_check_interval=1",
    "--trainer.limit_val_batches=1",
    "--trainer.accelerator=cpu",
    "--data.batch_size=2",
    "--data.num_workers=0",
    "--data.shapes={num_train: 4, num_val: 2, size: 16, num_frames: 5}",
]
SHRUNKEN = {
    "AutoencoderModule": [f"--model.autoencoder={TINY_VAE}", "--model.statistics_clips=2"],
    "DiffusionModule": [
        "--model.network.pooled_dim=12",
        "--model.text_encoder.dim=12",
        "--model.text_encoder.depth=1",
        "--model.text_encoder.num_heads=2",
    ],
    "VideoDiT": [
        "--model.network.dim=24",
        "--model.network.depth=1",
        "--model.network.num_heads=2",
    ],
    "UNet3D": ["--model.network.widths=[32, 64]", "--model.network.attention=[0, 1, 1]"],
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_survives_one_shrunken_step(recipe, tmp_path):
    content = yaml.safe_load(recipe.read_text())
    words = [*ALWAYS, *SHRUNKEN[content["model"]["class_path"]]]
    if (network := content["model"]["init_args"].get("network")) is not None:
        words += SHRUNKEN[network["class_path"]]
    if "alignment" in content["model"]["init_args"]:
        words += ["--model.alignment.layer=blocks.0", "--model.alignment.dim=24"]
    if content["data"]["class_path"].endswith("Latents"):
        words.append(f"--model.autoencoder={TINY_VAE}")
    run = tmp_path / "run"
    arguments = [f"--config={recipe}", f"--data.cache_dir={tmp_path}", f"--output={run}", *words]
    assert main(["fit", *arguments]) == 0
    assert (run / "final.safetensors").is_file()


@pytest.mark.parametrize("fill", ["Masked", "Nearest"])
def test_one_line_says_what_stands_between_keyframes(fill, tmp_path):
    words = [*SHRUNKEN["DiffusionModule"], *SHRUNKEN["VideoDiT"]]
    words += [*ALWAYS, f"--model.autoencoder={TINY_VAE}"]
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"model: {{init_args: {{frames: {{init_args: {{fill: {fill}}}}}}}}}\n")
    recipe = ROOT / "configs" / "interpolate_s_shapes.yaml"
    module, _, _ = build([recipe, overlay], words, tmp_path / "run")
    assert type(module.frames.fill).__name__ == fill
    assert module.frames.rule == Keyframes(2)
    assert module.frames.noise is not None


def test_no_recipe_says_where_things_are():
    for recipe in RECIPES:
        assert "outputs/" not in yaml.safe_dump(yaml.safe_load(recipe.read_text()))
        assert "cache_dir" not in recipe.read_text()
