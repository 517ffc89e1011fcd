"""What comes with the package: small, whole, and with everything that made it."""

import json

import pytest
import torch

import vdm
from vdm.pipelines.showcase import CAPTIONS, judge
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
    scores = json.loads((BUNDLED / name / "scores.json").read_text(encoding="utf-8"))
    assert scores["about"]["weights_sha256"] == read(name).weight_hashes()


def test_it_shows_what_it_is_asked_for():
    generate = vdm.load("moving-shapes")
    asked = CAPTIONS[:4]
    clips = generate(list(asked), steps=25, seed=0, progress=False)
    scores = [judge(clip, words) for clip, words in zip(clips, asked, strict=True)]
    assert sum(score.correct["count"] and score.correct["colour"] for score in scores) >= 3


def test_one_sample_of_a_batch_is_the_same_as_alone():
    generate = vdm.load("moving-shapes")
    batch = generate(list(CAPTIONS[:3]), seed=5, progress=False)
    alone = generate(CAPTIONS[2], seed=7, progress=False)
    torch.testing.assert_close(batch.frames[2:], alone.frames, rtol=0, atol=1e-5)
