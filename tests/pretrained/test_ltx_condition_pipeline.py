"""LTX-Video from version 0.9.5 on makes the frames that diffusers makes, whichever are given."""

import pytest
import torch
from diffusers import LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from torchvision.transforms.functional import to_pil_image, to_tensor

import vdm
from tests.pretrained.test_ltx_pipeline import agree
from tests.pretrained.tiny_dit import LTX_CLIP, ltx_condition_pipeline
from vdm.conditioning.given import GivenAhead
from vdm.pretrained import export
from vdm.types import Conditioning

PROMPTS, NEGATIVE, SEEDS = ["a cat runs", "the dogs"], "rain", [11, 5]
CLIP = LTX_CLIP | {"num_frames": 33}
PICTURE = (64, 96)
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


def pictures(count, seed=1):
    noise = torch.rand(count, 3, *PICTURE, generator=torch.Generator().manual_seed(seed))
    return [to_pil_image(picture) for picture in noise]


def movie(found):
    return torch.stack([to_tensor(picture) for picture in found], dim=1)


def their_frames(pipeline, conditions=None, count=2, **more):
    pipeline.set_progress_bar_config(disable=True)
    draws = [torch.Generator().manual_seed(seed) for seed in SEEDS[:count]]
    asked = {"frame_rate": 20, "num_inference_steps": 4, "guidance_scale": 3.0, **CLIP, **more}
    made = pipeline(
        conditions=conditions,
        prompt=PROMPTS[:count],
        negative_prompt=[NEGATIVE] * count,
        generator=draws if count > 1 else draws[0],
        output_type="pt",
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        **asked,
    )
    return made.frames.transpose(1, 2)


def our_frames(generate, count=2, **more):
    asked = {"negative_prompt": [NEGATIVE] * count, "guidance_scale": 3.0, **CLIP}
    asked |= {"fps": 20, "steps": 4, "seed": SEEDS[:count], **more}
    return generate(PROMPTS[:count], progress=False, **asked).frames


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ltx") / "model"
    theirs = ltx_condition_pipeline()
    theirs.save_pretrained(folder)
    return vdm.load(folder), theirs


def test_clips_of_words_agree_from_the_seed_on(both):
    ours, theirs = both
    agree(our_frames(ours), their_frames(theirs))


def test_pictures_at_both_ends_of_two_clips(both):
    ours, theirs = both
    first, last = pictures(2), pictures(2, seed=2)
    ends = [LTXVideoCondition(image=first), LTXVideoCondition(image=last, frame_index=32)]
    made = our_frames(ours, image=first, last_image=last)
    agree(made, their_frames(theirs, ends))
    assert not torch.allclose(made, our_frames(ours, image=first), atol=1e-2)
    asked = {
        "image": first[1],
        "last_image": last[1],
        "seed": SEEDS[1],
        "negative_prompt": NEGATIVE,
    }
    alone = ours(PROMPTS[1], fps=20, steps=4, guidance_scale=3.0, progress=False, **CLIP, **asked)
    torch.testing.assert_close(alone.frames, made[1:], atol=1e-5, rtol=0)


def test_pieces_given_in_part_are_made_anew_from_their_noise_on(both):
    """The beginning, a frame near it, and a piece whose last latents have places in the clip."""
    ours, theirs = both
    start, piece, one = pictures(1), pictures(17, seed=2), pictures(1, seed=3)
    conditions = [
        LTXVideoCondition(image=start[0], strength=0.2),
        LTXVideoCondition(image=one[0], frame_index=3, strength=0.99),
        LTXVideoCondition(video=piece, frame_index=8, strength=0.25),
    ]
    mask = torch.zeros(33)
    mask[0], mask[3], mask[8:25] = 0.2, 0.99, 0.25
    made = our_frames(ours, 1, video=movie(start + one + piece), mask=mask)
    agree(made, their_frames(theirs, conditions, 1))


def test_a_clip_goes_on_from_its_first_frames(both):
    ours, theirs = both
    clip = pictures(9)
    made = our_frames(ours, 1, video=movie(clip))
    agree(made, their_frames(theirs, [LTXVideoCondition(video=clip)], 1))


def test_it_is_written_back_and_loads_there(both, tmp_path):
    ours, theirs = both
    export(ours, tmp_path / "back")
    back = LTXConditionPipeline.from_pretrained(tmp_path / "back")
    asked = {"num_frames": 9, "num_inference_steps": 2}
    assert torch.equal(their_frames(back, **asked), their_frames(theirs, **asked))
    again = vdm.load(tmp_path / "back")
    assert again.parts.describe()["defaults"] == ours.parts.describe()["defaults"]
    assert again.parts.config_hash() == ours.parts.config_hash()


def test_what_is_published_is_what_it_makes_by_default(both):
    parts = both[0].parts
    assert (parts.system, parts.given) == ("LTX-Video-0.9.5", GivenAhead())
    assert (parts.defaults.num_frames, parts.defaults.fps) == (161, 25.0)
    assert (parts.defaults.steps, parts.defaults.time_grid) == (50, "linear_quadratic")
    assert parts.defaults.decode_noise == 0.025
    assert (parts.text_encoder.max_length, parts.text_encoder.padding) == (256, "masked")


def test_what_would_count_frames_that_are_not_of_the_clip_is_refused(both):
    ours = both[0]
    with pytest.raises(ValueError, match=r"got the ramp \(1\.0, 3\.0\) for model 'model'"):
        ours("a cat", guidance_scale=(1, 3))
    told = Conditioning(text=torch.randn(1, 7, 14), fps=torch.ones(1), starts=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="got starts of 4 frames, expected 3"):
        ours.network(torch.randn(1, 6, 3, 2, 2), torch.ones(1), told)


def test_schedulers_that_shift_times_are_refused(both, tmp_path):
    theirs = both[1]
    theirs.save_pretrained(tmp_path / "shifted")
    type(theirs.scheduler)(shift=3.0).save_pretrained(tmp_path / "shifted" / "scheduler")
    with pytest.raises(ValueError, match=r"shifted by \{'shift': 3\.0\}, expected one that shifts"):
        vdm.load(tmp_path / "shifted")
