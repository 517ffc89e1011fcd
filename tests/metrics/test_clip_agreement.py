"""Cosines are those that CLIP itself gives, clip by clip, and are known by its weights."""

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

from tests.pretrained.tiny_clip import LENGTH, write_clip
from vdm.metrics.clip_agreement import ClipAgreement
from vdm.pipelines.evaluate import evaluate


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 36, 50, 3)).astype(np.uint8)


CAPTIONS = ["a cat", "a b c d e f g h i j k l m n o p q"]


def test_cosines_are_those_of_the_model_itself(clip_folder, clips):
    rows = ClipAgreement(clip_folder)(clips, CAPTIONS)
    model, process = (
        CLIPModel.from_pretrained(clip_folder),
        CLIPProcessor.from_pretrained(clip_folder),
    )
    for clip, caption, row in zip(clips, CAPTIONS, rows, strict=True):
        inputs = process(
            text=[caption],
            images=list(clip),
            return_tensors="pt",
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
        )
        with torch.no_grad():
            made = model(**inputs)
        expected = made.logits_per_text[0] / model.logit_scale.exp()
        assert row["text"] == pytest.approx(float(expected.mean()), abs=1e-6)
        frames = made.image_embeds
        assert row["first"] == pytest.approx(float((frames[1:] @ frames[0]).mean()), abs=1e-6)
        near = (frames[1:] * frames[:-1]).sum(-1).mean()
        assert row["neighbours"] == pytest.approx(float(near), abs=1e-6)


def test_a_batch_changes_nothing_and_still_clips_look_alike(clip_folder, clips):
    score = ClipAgreement(clip_folder)
    alone = [score(clip[None], [words])[0] for clip, words in zip(clips, CAPTIONS, strict=True)]
    for one, other in zip(score(clips, CAPTIONS), alone, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    still = score(clips[:, :1].repeat(3, 1), CAPTIONS)
    for row in still:
        assert row["first"] == pytest.approx(1, abs=1e-6) == row["neighbours"]


def test_it_is_a_protocol_that_names_its_weights(clip_folder, tmp_path):
    def noise(prompts, *, seed):
        class Made:
            frames = torch.rand(len(prompts), 3, 16, 64, 64)

        return Made

    options = {"n": 2, "num_objects": (1,), "num_resamples": 5, "out": tmp_path / "scores"}
    result = evaluate(noise, "test-iid", "clip", clip_weights=clip_folder, **options)
    scores = result.scores["test-iid/1 object"]
    assert scores["static copy"]["clip/first"].value == pytest.approx(1, abs=1e-6)
    name = ClipAgreement(clip_folder).id
    assert scores["generated"]["clip/text"].protocol.startswith(f"clip/text@{name}/16f@8/64/")
    (tmp_path / "other").mkdir()
    write_clip(tmp_path / "other", seed=1)
    other = evaluate(noise, "test-iid", "clip", clip_weights=tmp_path / "other", **options)
    again = other.scores["test-iid/1 object"]["real"]["clip/text"]
    assert again.value != scores["real"]["clip/text"].value
    with pytest.raises(ValueError, match="scores of different protocols cannot be compared"):
        again - scores["real"]["clip/text"]


def test_without_weights_it_says_where_they_are_from(tmp_path):
    with pytest.raises(ValueError, match=r"clip needs weights .* openai/clip-vit-base-patch32"):
        evaluate(print, "test-iid", "clip", n=2)
    with pytest.raises(FileNotFoundError, match="no folder"):
        ClipAgreement(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no CLIP in transformers' layout"):
        ClipAgreement(tmp_path)
