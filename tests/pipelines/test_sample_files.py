"""Files of clips: how they are called, what they say, what is refused."""

import pytest
import torch

from vdm.pipelines import sample_to_folder
from vdm.pipelines.sample_files import slug
from vdm.pretrained.loading import read_safetensors
from vdm.utils.video_io import read_metadata, read_video

RED, BLUE = "a red circle moves left", "a small blue square stays still and a red ring grows"
LATENTS = {"output": "latents", "progress": False}


def test_files_are_named_after_prompt_and_seed(generate, tmp_path):
    asked = {"suffix": ".mkv", "steps": 1, "progress": False}
    paths = sample_to_folder(generate, [RED, BLUE, RED], tmp_path, seed=6, batch_size=2, **asked)
    assert [path.name for path in paths] == [
        "a-red-circle-moves-left_seed6.mkv",
        "a-small-blue-square-stays-still-and-a-red-ring-grows_seed7.mkv",
        "a-red-circle-moves-left_seed8.mkv",
    ]
    assert [read_metadata(path)["seed"] for path in paths] == [6, 7, 8]
    assert read_metadata(paths[1])["prompt"] == BLUE
    [alone] = sample_to_folder(generate, [RED], tmp_path / "alone", seed=8, **asked)
    first, second = (read_video(path)[0].int() for path in (paths[2], alone))
    assert (first - second).abs().max() <= 1


def test_clips_for_vbench_are_named_as_its_script_reads_them(generate, tmp_path):
    asked = {"suffix": ".mp4", "steps": 1, "progress": False, "seed": 3}
    paths = sample_to_folder(generate, [RED, BLUE], tmp_path, vbench=2, batch_size=3, **asked)
    names = [f"{RED}-0.mp4", f"{RED}-1.mp4", f"{BLUE}-0.mp4", f"{BLUE}-1.mp4"]
    assert [path.name for path in paths] == names
    assert [read_metadata(path)["seed"] for path in paths] == [3, 4, 5, 6]
    for prompt in ("red/blue", "x" * 300):
        with pytest.raises(ValueError, match="expected one that can be the name of a file"):
            sample_to_folder(generate, [prompt], tmp_path, vbench=2, **asked)
    with pytest.raises(ValueError, match="got vbench=0, expected at least 1"):
        sample_to_folder(generate, [RED], tmp_path, vbench=0, **asked)


def test_latents_become_a_file_each_that_says_what_they_are_of(generate, tmp_path):
    asked = {"steps": 1, **LATENTS}
    paths = sample_to_folder(generate, [RED, BLUE], tmp_path, seed=6, batch_size=1, **asked)
    expected = generate([RED, BLUE], seed=6, **asked)
    for k, (path, prompt) in enumerate(zip(paths, (RED, BLUE), strict=True)):
        tensors, about = read_safetensors(path)
        torch.testing.assert_close(tensors["latents"], expected[k : k + 1], atol=1e-5, rtol=0)
        assert about == {"prompt": prompt, "seed": str(6 + k)}


@pytest.mark.parametrize("prompts", [[], [RED], [RED, BLUE, RED]])
def test_every_clip_has_its_own_part_of_the_noise(generate, tmp_path, prompts):
    noise = torch.randn(3, 3, 3, 4, 6)
    asked = {"steps": 1, "noise": noise, **LATENTS}
    paths = sample_to_folder(generate, prompts, tmp_path, seed=0, batch_size=2, **asked)
    assert len(set(paths)) == 3
    made = torch.cat([read_safetensors(path)[0]["latents"] for path in paths])
    expected = generate(prompts if len(prompts) == 3 else (prompts or [""])[0], **asked)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_file_names_are_safe_and_distinct():
    long = "a red circle moves left and " * 4
    assert slug("../A Red, circle!") == "a-red-circle"
    assert slug(None) == "no-prompt"
    assert len(slug(long)) < 75
    assert slug(long) != slug(long + "x")


def test_sampling_to_files_refuses_what_makes_none(generate, tmp_path):
    for asked, message in [
        ({"suffix": ".avi"}, "suffix '.avi'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"output": "latent"}, "output='latent'"),
        ({"noise": torch.zeros(3, 3, 3, 4, 6), "prompts": [RED, BLUE]}, "got 2 for prompts"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample_to_folder(**{"model": generate, "prompts": [RED], "out": tmp_path, **asked})
    assert list(tmp_path.iterdir()) == []
