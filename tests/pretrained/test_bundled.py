"""What comes with the package: small, whole, and with everything that made it."""

import json

import pytest
import torch

import vdm
from vdm import cli
from vdm.pipelines.showcase import CAPTIONS, judge
from vdm.pretrained.cascades import read_cascade
from vdm.pretrained.layout import refer, write_folder
from vdm.pretrained.sources import BUNDLED, bundled, read


def test_the_model_of_the_demo_is_there():
    assert "moving-shapes" in bundled()


@pytest.mark.parametrize("name", bundled())
def test_a_card_says_how_it_was_made(name):
    card = (BUNDLED / name / "README.md").read_text(encoding="utf-8").lower()
    for said in ("vdm fit --config configs/", "seed", "hardware", "hours", "scores", "licen"):
        assert said in card, said


@pytest.mark.parametrize("name", bundled())
def test_scores_are_those_of_these_weights(name):
    about = json.loads((BUNDLED / name / "scores.json").read_text(encoding="utf-8"))["about"]
    stages = about.get("stages", [about])
    models = [BUNDLED / name]
    if "stages" in about:
        models = [BUNDLED / name / stage.model for stage in read_cascade(name)[1]]
    assert [one["weights_sha256"] for one in stages] == [
        read(one).weight_hashes() for one in models
    ]


@pytest.mark.parametrize("name", [name for name in bundled() if name != "shapes-vae"])
def test_it_makes_clips_of_words(name):
    generate = vdm.load(name)
    clip = generate("a red circle moves left", steps=2, seed=0, progress=False)
    assert clip.frames.shape == (1, 3, 16, 64, 64)
    assert clip.frames.std() > 0.05


def test_all_together_they_are_small():
    weights = [path.stat().st_size for path in BUNDLED.rglob("*.safetensors")]
    others = [path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()]
    assert sum(weights) < 40e6
    assert sum(others) - sum(weights) < 1.5e6


def test_it_shows_what_it_is_asked_for():
    generate = vdm.load("moving-shapes")
    asked = CAPTIONS[:4]
    clips = generate(list(asked), steps=10, seed=0, progress=False)
    scores = [judge(clip, words) for clip, words in zip(clips, asked, strict=True)]
    assert sum(score.correct["count"] and score.correct["colour"] for score in scores) >= 3


def test_one_sample_of_a_batch_is_the_same_as_alone():
    generate = vdm.load("moving-shapes")
    batch = generate(list(CAPTIONS[:2]), seed=5, steps=3, progress=False)
    alone = generate(CAPTIONS[1], seed=6, steps=3, progress=False)
    torch.testing.assert_close(batch.frames[1:], alone.frames, rtol=0, atol=1e-5)


def test_a_model_need_not_store_what_a_bundled_one_has(tmp_path):
    parts = read("shapes-dit")
    parts.network = None
    parts.text_encoder = None
    made = write_folder(parts, tmp_path / "same", torch.float16)
    assert refer(made, "shapes-dit") == ["autoencoder"]
    assert [path.name for path in made.iterdir()] == ["vdm.json"]
    entry = json.loads((made / "vdm.json").read_text())["weights"]["autoencoder"]
    assert entry["bundled"] == "shapes-dit"
    again = read(made)
    assert again.weight_hashes() == {"autoencoder": entry["sha256"]}
    for key, value in again.autoencoder.state_dict().items():
        assert torch.equal(value, parts.autoencoder.state_dict()[key]), key
    assert refer(made, "shapes-dit") == ["autoencoder"]  # once more changes nothing
    assert json.loads((made / "vdm.json").read_text())["weights"]["autoencoder"] == entry


def test_a_zero_of_another_sign_is_the_same_number(tmp_path):
    parts = read("shapes-dit")
    parts.network = parts.text_encoder = None
    zeros = 0
    with torch.no_grad():
        for parameter in parts.autoencoder.parameters():
            zeros += int(((parameter == 0) & parameter.signbit()).sum())
            parameter.add_(0.0)  # as averaging does
    assert zeros
    made = write_folder(parts, tmp_path / "same", torch.float16)
    assert refer(made, "shapes-dit") == ["autoencoder"]


def test_what_differs_in_one_number_is_stored(tmp_path):
    parts = read("shapes-dit")
    parts.network = parts.text_encoder = None
    with torch.no_grad():
        parts.autoencoder.decoder[0].weight[0, 0, 0, 0, 0] += 1
    made = write_folder(parts, tmp_path / "other", torch.float16)
    assert refer(made, "shapes-dit") == []
    assert (made / "autoencoder.safetensors").is_file()


def test_the_command_refers_to_bundled_models_alone(tmp_path, capsys):
    words = ["convert", "shapes-dit", str(tmp_path / "same"), "--dtype", "float16", "--refer-to"]
    assert cli.main([*words, "shapes-di"]) == 2
    assert "nearest shapes-dit" in capsys.readouterr().err
    assert cli.main([*words, "shapes-dit"]) == 0
    assert [path.name for path in (tmp_path / "same").iterdir()] == ["vdm.json"]
    assert read(tmp_path / "same").weight_hashes() == read("shapes-dit").weight_hashes()
