"""Given frames stay, what is not given has no influence, and bad pictures are refused by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from vdm.pipelines.given import given_latents, given_pixels, hold, load_movie, read_image
from vdm.utils.video_io import write_video

RED = "a red circle moves left"
ASK = {"seed": 3, "output": "latents", "progress": False}


def picture(seed: int = 0, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def movie(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, frames, 16, 24, generator=torch.Generator().manual_seed(seed))


def encode(generate, video: torch.Tensor) -> torch.Tensor:
    return generate.autoencoder.encode(2 * video[None] - 1)


def test_a_given_first_frame_is_the_first_latent_of_the_clip(generate):
    latents = generate(RED, image=picture(), **ASK)
    expected = encode(generate, picture()[:, None])
    assert torch.allclose(latents[:, :, :1], expected, atol=1e-5)
    assert latents.shape == (1, 3, 3, 4, 6)
    other = generate(RED, image=picture(1), **ASK)
    assert not torch.allclose(latents[:, :, 1:], other[:, :, 1:])


def test_a_batch_of_pictures_goes_with_a_batch_of_prompts(generate):
    pictures = torch.stack([picture(0), picture(1)])
    both = generate([RED, RED], image=pictures, **ASK)
    alone = generate(RED, image=picture(1), **{**ASK, "seed": 4})
    assert torch.allclose(both[1:], alone, atol=1e-5)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "ancestral", "ddim"])
def test_given_latents_come_out_as_they_went_in(generate, sampler):
    video = movie(3)
    latents = generate(RED, video=video, sampler=sampler, **ASK)
    assert torch.allclose(latents[:, :, :2], encode(generate, video), atol=1e-4)


def test_only_whole_given_latents_count(generate):
    one = generate(RED, video=movie(1), **ASK)
    two = generate(RED, video=torch.cat([movie(1), movie(1, seed=5)], dim=1), **ASK)
    assert torch.allclose(one, two, atol=1e-5)


def test_a_video_of_the_given_frames_alone_goes_where_the_mask_says(generate):
    mask, video = torch.tensor([1.0, 0, 0, 1, 1]), movie(5)
    whole = generate(RED, video=video, mask=mask, **ASK)
    keys = generate(RED, video=video[:, [0, 3, 4]], mask=mask, **ASK)
    assert torch.equal(whole, keys)
    with pytest.raises(ValueError, match="got 2 given frames, expected exactly num_frames=5"):
        generate(RED, video=video[:, :2], mask=mask, **ASK)


def test_frames_that_are_not_given_have_no_influence(generate):
    mask = torch.tensor([1.0, 0, 0, 1, 1])
    video = movie(5)
    other = torch.where(mask.reshape(1, -1, 1, 1) == 1, video, movie(5, seed=9))
    first = generate(RED, video=video, mask=mask, **ASK)
    assert torch.equal(first, generate(RED, video=other, mask=mask, **ASK))


def test_a_given_region_stays(generate):
    mask = torch.zeros(5, 16, 24)
    mask[:, :, :8] = 1
    latents = generate(RED, video=movie(5), mask=mask, **ASK)
    known = hold(2 * movie(5)[None] - 1, given_pixels(mask, 5, 16, 24))
    expected = generate.autoencoder.encode(known)
    assert torch.allclose(latents[..., :2], expected[..., :2], atol=1e-4)


def test_latents_are_given_where_all_their_pixels_are():
    mask = torch.zeros(1, 1, 6, 4, 6)
    mask[:, :, :4] = 1
    mask[:, :, 5, :, 2:] = 1
    mask[:, :, 4, 2:] = 1
    where = given_latents(mask, (2, 2, 2))
    assert where.shape == (1, 1, 4, 2, 3)
    assert where[0, 0, :2].all()
    assert not where[0, 0, 2, 0].any()
    assert where[0, 0, 3].tolist() == [[0, 1, 1], [0, 1, 1]]


def test_latents_of_pieces_are_given_as_each_counts_its_frames():
    mask = torch.zeros(1, 1, 9, 1, 1)
    mask[:, :, :6] = 1
    assert given_latents(mask, (2, 1, 1), piece=5).flatten().tolist() == [1, 1, 1, 0, 0]
    assert given_latents(mask, (2, 1, 1)).flatten().tolist() == [1, 1, 1, 0, 0]
    assert given_latents(mask[:, :, :8], (2, 1, 1), piece=5).flatten().tolist() == [1, 1, 1, 1, 0]


def test_gaps_are_filled_from_the_past_then_from_the_future_then_grey():
    video = torch.arange(1.0, 6).reshape(1, 1, 5, 1, 1).expand(1, 3, 5, 1, 1)
    for mask, expected in [
        ([0, 1, 0, 0, 1], [2, 2, 2, 2, 5]),
        ([0, 0, 0, 1, 0], [4, 4, 4, 4, 4]),
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    ]:
        where = torch.tensor(mask).float().reshape(1, 1, 5, 1, 1)
        assert hold(video, where)[0, 0, :, 0, 0].tolist() == expected


def test_pictures_of_every_kind_are_the_same_picture(tmp_path):
    levels = (picture() * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    image = Image.fromarray(levels)
    image.save(tmp_path / "picture.png")
    tensor = torch.from_numpy(levels).movedim(-1, 0).float() / 255
    for size in [(16, 24), (10, 14)]:
        expected = read_image(image, *size)
        assert expected.shape == (1, 3, *size)
        for other in (tmp_path / "picture.png", str(tmp_path / "picture.png"), tensor, [image]):
            assert torch.equal(read_image(other, *size), expected)
    assert torch.equal(read_image(tensor, 16, 24)[0], 2 * tensor - 1)


def test_lanczos_is_the_rule_for_other_sizes():
    levels = (picture() * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    expected = np.array(Image.fromarray(levels).resize((14, 10), Image.Resampling.LANCZOS))
    got = ((read_image(picture(), 10, 14)[0] + 1) * 127.5).round().to(torch.uint8)
    assert np.array_equal(got.movedim(0, -1).numpy(), expected)


def test_a_clip_is_read_from_a_file(generate, tmp_path):
    frames = (movie(3) * 255).round().to(torch.uint8).movedim(0, -1)
    path = write_video(frames, tmp_path / "clip.npz")
    expected = generate(RED, video=frames.movedim(-1, 0).float() / 255, **ASK)
    # Memory that is laid out differently may round differently.
    torch.testing.assert_close(generate(RED, video=path, **ASK), expected, atol=1e-5, rtol=0)
    assert load_movie(path, 8, 12).shape == (1, 3, 3, 8, 12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"image": picture(), "video": movie(2)}, "image and video, expected one"),
        ({"image": picture(), "mask": [1, 0]}, "mask without video"),
        ({"video": movie(6)}, "6 given frames, expected at most num_frames=5"),
        ({"video": movie(5)}, "all 5 frames given"),
        ({"video": movie(4), "mask": [1, 1, 0, 0, 0]}, "expected exactly num_frames=5"),
        ({"video": movie(5), "mask": [1, 0.5, 0, 0, 0]}, "values besides 0 and 1"),
        ({"video": movie(5), "mask": [1, 0, 0]}, r"mask of shape .*expected \(5,\)"),
        ({"video": movie(5), "mask": [0, 1, 0, 0, 0]}, "fill no whole latent"),
        ({"image": picture()[:2]}, r"image of shape \(2, 16, 24\), expected \(3, h, w\)"),
        ({"image": 3 * picture()}, r"image values from .* expected \[0, 1\]"),
        ({"video": movie(2)[0]}, "video of shape"),
        ({"image": torch.stack([picture()] * 3), "prompt": [RED, RED]}, "expected 1 or 3"),
    ],
)
def test_contradictions_are_one_line(generate, asked, message):
    with pytest.raises(ValueError, match=message):
        generate(**{"prompt": RED, **asked, **ASK})


def test_what_is_no_picture_is_refused(generate, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text\.png: not a picture"):
        generate(RED, image=tmp_path / "text.png", **ASK)
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        generate(RED, image=tmp_path / "gone.png", **ASK)
    with pytest.raises(TypeError, match="type ndarray"):
        generate(RED, image=np.zeros((3, 4, 4)), **ASK)
    with pytest.raises(TypeError, match=r"torch\.uint8, expected floating point"):
        generate(RED, image=torch.zeros(3, 4, 4, dtype=torch.uint8), **ASK)
    with pytest.raises(TypeError, match="type int"):
        generate(RED, video=3, **ASK)
