"""LTX-Video makes the frames that diffusers makes, from words, or a picture and words."""

import pytest
import torch
from diffusers import LTXImageToVideoPipeline, LTXPipeline
from torchvision.transforms.functional import to_pil_image

import vdm
from tests.pretrained.tiny_dit import LTX_CLIP, ltx_pipeline
from vdm.conditioning.given import DrawnInPlace
from vdm.pretrained import export

PROMPTS, NEGATIVE, SEEDS = ["a cat runs", "the dogs"], "rain", [11, 5]
STEPS, FPS = 3, 20
TOLD = {"decode_timestep": 0.05, "decode_noise_scale": 0.025}
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


def pictures():
    noise = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    return [to_pil_image(picture) for picture in noise]


def their_frames(pipeline, steps=STEPS, count=2, **more):
    pipeline.set_progress_bar_config(disable=True)
    draws = [torch.Generator().manual_seed(seed) for seed in SEEDS[:count]]
    made = pipeline(
        prompt=PROMPTS[:count],
        negative_prompt=[NEGATIVE] * count,
        frame_rate=FPS,
        num_inference_steps=steps,
        guidance_scale=3.0,
        generator=draws if count > 1 else draws[0],
        output_type="pt",
        **LTX_CLIP,
        **more,
    )
    return made.frames.transpose(1, 2)


def our_frames(generate, count=2, **more):
    asked = {"negative_prompt": [NEGATIVE] * count, "guidance_scale": 3.0, **LTX_CLIP, **more}
    asked |= {"fps": FPS, "steps": STEPS, "seed": SEEDS[:count]}
    return generate(PROMPTS[:count], progress=False, **asked).frames


@pytest.fixture(scope="module", params=[False, True], ids=["0.9.0", "later"])
def is_told(request):
    return request.param


@pytest.fixture(scope="module")
def both(is_told, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ltx") / "model"
    theirs = ltx_pipeline(is_told)
    theirs.save_pretrained(folder)
    return vdm.load(folder), theirs


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05
    error = float((ours - theirs).abs().max())
    print(f"largest difference of frames {error:.1e}")
    assert error <= 1e-4


def test_frames_agree_from_the_seed_on(both, is_told):
    ours, theirs = both
    agree(our_frames(ours), their_frames(theirs, **TOLD if is_told else {}))


def test_a_clip_starts_from_a_picture(both, is_told):
    count = 1 if is_told else 2  # there the last draw is made for one sample alone
    ours, theirs = both
    asked, told = {"image": pictures()[:count], "count": count}, TOLD if is_told else {}
    theirs = LTXImageToVideoPipeline(**theirs.components)
    made = our_frames(ours, **asked)
    agree(made, their_frames(theirs, **asked, **told))
    assert not torch.allclose(made, our_frames(ours, count), atol=1e-2)


def test_it_is_written_back_and_loads_there(both, is_told, tmp_path):
    ours, theirs = both
    export(ours, tmp_path / "back")
    back = LTXPipeline.from_pretrained(tmp_path / "back")
    told = TOLD if is_told else {}
    assert torch.equal(their_frames(back, 2, **told), their_frames(theirs, 2, **told))
    again = vdm.load(tmp_path / "back")
    assert again.parts.describe()["defaults"] == ours.parts.describe()["defaults"]
    assert again.parts.config_hash() == ours.parts.config_hash()


def test_what_is_published_is_what_it_makes_by_default(both, is_told):
    parts = both[0].parts
    assert (parts.system, parts.given) == ("LTX-Video", DrawnInPlace())
    assert (parts.defaults.num_frames, parts.defaults.fps) == (161, 25.0)
    assert (parts.defaults.height, parts.defaults.width) == (512, 704)
    assert (parts.defaults.steps, parts.defaults.guidance_scale) == (50, 3.0)
    assert parts.defaults.decode_noise == (0.025 if is_told else 0.0)
    assert (parts.text_encoder.max_length, parts.text_encoder.padding) == (128, "marked")
