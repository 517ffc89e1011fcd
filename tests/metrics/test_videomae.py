import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

from vdm.metrics.videomae import VideoMAE

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 20, 24, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        num_labels=5,
    )
    model = VideoMAEForVideoClassification(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, 0, 0.3)
    path = tmp_path_factory.mktemp("models") / "videomae"
    model.save_pretrained(path)
    return path


def test_features_are_what_the_classifier_s_last_layer_is_given(folder):
    network = VideoMAE(folder)
    features = network(CLIPS)
    assert features.shape == (2, 24)
    assert features.dtype == np.float32
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    pixels = torch.from_numpy(CLIPS[1]).permute(0, 3, 1, 2) / 255
    resized = torch.nn.functional.interpolate(pixels, (32, 32), mode="bilinear")
    with torch.no_grad():
        expected = model(resized[None]).logits
        logits = model.classifier(torch.from_numpy(features[1:]))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_weights_are_in_its_name_and_resizing_in_its_rule(folder):
    network = VideoMAE(folder)
    assert network.id.startswith("videomae@")
    assert VideoMAE(str(folder)).id == network.id
    assert network.resize == "32x32-bilinear-unit"
    assert network.num_frames == 4
    with pytest.raises(ValueError, match="got clips of 3 frames, expected 4"):
        network(CLIPS[:, :3])


def test_what_classifies_no_clips_is_refused(folder, tmp_path):
    VideoMAEModel(VideoMAEConfig.from_pretrained(folder)).save_pretrained(tmp_path / "trunk")
    for name in ("trunk", "nothing"):
        (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="no VideoMAE that classifies clips"):
            VideoMAE(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no folder"):
        VideoMAE(tmp_path / "nowhere")
