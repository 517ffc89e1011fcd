"""Published models in full size are planned from their settings alone."""

import json

import pytest

from tests.pretrained import full_models
from vdm.cli import main
from vdm.pipelines.plan_cascade import plan_source

TERA = 1e12
WAN_VAE = 126_892_531


def planned(folder, **asked):
    return {stage.name: stage for stage in plan_source(folder, **asked)}


def counts(stages):
    return {name: stage.num_parameters for name, stage in stages.items()}


def test_stable_video_diffusion(tmp_path):
    full_models.write_svd(tmp_path)
    stages = planned(tmp_path)
    assert counts(stages) == {
        "image_encoder": 632_076_800,
        "encoder": 97_742_847,
        "network": 1_524_623_082,
        "decoder": 97_742_847,
    }
    assert stages["network"].num_calls == 2 * 25  # its guidance is a ramp
    # 25 frames of 576x1024 where the settings say nothing else; 80 TFLOP were counted in diffusers.
    assert stages["network"].flops == pytest.approx(80 * TERA, rel=0.05)


def test_modelscope(tmp_path):
    stages = planned(full_models.write_modelscope(tmp_path))
    assert counts(stages) == {
        "text_encoder": 340_387_840,
        "network": 1_411_233_860,
        "decoder": 83_653_863,
    }
    assert stages["network"].num_calls == 2 * 50


@pytest.mark.parametrize(
    ("kind", "expected", "calls"),
    [
        (
            "2.1",
            {"image_encoder": 630_766_080, "encoder": WAN_VAE, "network": 16_394_878_784},
            2 * 40,
        ),
        ("2.2", {"encoder": WAN_VAE, "network": 2 * 14_288_901_184}, 2 * 40),
    ],
)
def test_wan(tmp_path, kind, expected, calls):
    folder = full_models.write_wan(tmp_path, kind)
    stages = planned(folder, num_frames=5, height=64, width=96)
    assert counts(stages) == {"text_encoder": 5_680_910_336, **expected, "decoder": WAN_VAE}
    assert stages["network"].num_calls == calls


def test_an_image_model_with_motion_modules(tmp_path, capsys):
    image = full_models.write_image(tmp_path / "image")
    motion = full_models.write_motion(tmp_path / "motion")
    words = ["plan", str(image), "--motion", str(motion), "--json"]
    assert main(words) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
    assert rows["network"]["num_parameters"] == 1_312_730_244
    assert rows["text_encoder"]["num_parameters"] == 123_060_480
    assert rows["network"]["flops"] == pytest.approx(17.7 * TERA, rel=0.05)
    assert all(row["roofline_seconds"] > 0 for row in rows.values())
    assert not list(tmp_path.rglob("*.safetensors"))
