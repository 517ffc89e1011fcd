"""Consistencies are those of the network itself on frames prepared as VBench's code does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize
from transformers import (
    CLIPModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from vdm.metrics.clip_agreement import ClipAgreement
from vdm.metrics.frame_consistency import (
    background_consistency,
    clip_encoder,
    load_dino,
    measure_consistency,
    subject_consistency,
)
from vdm.metrics.vbench import SUBJECT, scaled
from vdm.pipelines.evaluate import evaluate

SIDE = 32
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
CONFIG = {"image_size": SIDE, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2}
CONFIG |= {"num_attention_heads": 3, "intermediate_size": 40}


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    path = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**CONFIG))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    ViTImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def clips():
    """Cross-fades between two frames of noise, wider than high."""
    ends = np.random.default_rng(0).integers(0, 256, (2, 2, 1, 36, 53, 3))
    share = np.linspace(0, 1, 5).reshape(-1, 1, 1, 1)
    return np.rint((1 - share) * ends[:, 0] + share * ends[:, 1]).astype(np.uint8)


def expected(features):
    unit = torch.nn.functional.normalize(features, dim=-1)
    values = []
    for k in range(1, len(unit)):
        values += [max(0.0, float(unit[k] @ unit[0])), max(0.0, float(unit[k] @ unit[k - 1]))]
    return 100 * np.mean(values)


def test_subject_consistency_is_that_of_the_class_tokens(dino, clips):
    measure = subject_consistency(dino)
    rows = measure.rows(clips, captions=pytest.fail)
    model = ViTModel.from_pretrained(dino).eval()
    prepare = Compose([Resize(SIDE, antialias=False), Normalize(MEAN, STD)])
    for frames, row in zip(clips, rows, strict=True):
        pixels = prepare(torch.from_numpy(frames).movedim(-1, 1) / 255)
        assert pixels.shape == (5, 3, 32, 47)
        with torch.no_grad():
            states = model(pixels, interpolate_pos_encoding=True).last_hidden_state
        assert row == pytest.approx({"raw": expected(states[:, 0])}, abs=1e-4)
        assert row["raw"] < 99.9
    assert measure.estimator == "vit8-32-bilinear"


def test_background_consistency_is_that_of_the_middle_of_each_frame(clip_folder, clips):
    measure = background_consistency(ClipAgreement(clip_folder))
    rows = measure.rows(clips, captions=pytest.fail)
    loaded = ClipAgreement(clip_folder)
    model, process = CLIPModel.from_pretrained(clip_folder), loaded.process.image_processor
    steps = Resize(30, InterpolationMode.BICUBIC, antialias=False), CenterCrop(30)
    prepare = Compose([*steps, Normalize(process.image_mean, process.image_std)])
    for frames, row in zip(clips, rows, strict=True):
        pixels = prepare(torch.from_numpy(frames).movedim(-1, 1) / 255)
        with torch.no_grad():
            states = model.vision_model(pixels).pooler_output
            features = model.visual_projection(states)
        assert row == pytest.approx({"raw": expected(features)}, abs=1e-4)
        assert row["raw"] < 99.9
    assert measure.estimator == "clip10-30-bicubic-crop"


@pytest.mark.parametrize("name", ["subject", "background"])
def test_order_raises_consistency_and_a_still_clip_has_all_of_it(name, dino, clip_folder, clips):
    encoder = load_dino(dino) if name == "subject" else clip_encoder(ClipAgreement(clip_folder))
    shuffled = measure_consistency(clips[:, [0, 4, 1, 3, 2]], SUBJECT, encoder)
    ordered = measure_consistency(clips, SUBJECT, encoder)
    assert all(a["raw"] < b["raw"] for a, b in zip(shuffled, ordered, strict=True))
    for row in measure_consistency(clips[:, :1].repeat(3, 1), SUBJECT, encoder):
        assert row["raw"] == pytest.approx(100, abs=1e-4)
    assert ordered == [measure_consistency(one[None], SUBJECT, encoder)[0] for one in clips]


def test_only_the_network_of_vbench_is_on_its_scale(dino, clips):
    encoder = load_dino(dino)
    assert not encoder.is_published
    rows = measure_consistency(clips, SUBJECT, replace(encoder, is_published=True))
    for row, plain in zip(rows, measure_consistency(clips, SUBJECT, encoder), strict=True):
        assert row == {**plain, "scaled": 100 * scaled(SUBJECT, plain["raw"] / 100)}


def test_they_are_protocols_that_name_their_weights_and_need_no_captions(dino, clip_folder):
    def noise(prompts, *, seed):
        class Made:
            frames = torch.rand(len(prompts), 3, 16, 64, 64)

        return Made

    protocols = ("subject-consistency", "background-consistency")
    options = {"n": 2, "num_objects": (1,), "num_resamples": 5}
    weights = {"dino_weights": dino, "clip_weights": clip_folder}
    scores = evaluate(noise, "test-iid", protocols, **options, **weights).scores
    named = scores["test-iid/1 object"]
    for name, own in zip(
        protocols, (load_dino(dino), clip_encoder(ClipAgreement(clip_folder))), strict=True
    ):
        score = named["generated"][f"{name}/raw"]
        assert score.protocol.startswith(f"{name}/raw@{own.weights}/16f@8/64/native/")
        assert score.protocol.endswith(f"/n2/{own.id}/r1")
        assert named["static copy"][f"{name}/raw"].value == pytest.approx(100, abs=1e-4)
        assert f"{name}/scaled" not in named["generated"]


def test_what_is_no_such_network_is_refused(clip_folder, tmp_path):
    with pytest.raises(ValueError, match=r"subject-consistency needs .* facebook/dino-vitb16"):
        evaluate(print, "test-iid", "subject-consistency", n=2)
    with pytest.raises(ValueError, match=r"background-consistency needs .*clip-vit-base-patch32"):
        evaluate(print, "test-iid", "background-consistency", n=2)
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_dino(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no ViT in transformers' layout"):
        load_dino(tmp_path)
    with pytest.raises(ValueError, match="got a model of type 'clip', expected 'vit'"):
        load_dino(clip_folder)
    made = ViTForImageClassification(ViTConfig(**CONFIG))
    ViTImageProcessor().save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    load_dino(tmp_path)  # a head is not read
    for layers, said in (
        (3, r"layers\.2\..* is missing"),
        (1, r"got .*layers\.1\..*, expected no"),
    ):
        ViTConfig(**{**CONFIG, "num_hidden_layers": layers}).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=said):
            load_dino(tmp_path)
