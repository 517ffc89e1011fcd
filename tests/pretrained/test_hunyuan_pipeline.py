"""HunyuanVideo makes the frames that diffusers makes, and goes back to its folder."""

import inspect
import json

import pytest
import torch
from diffusers import HunyuanVideoPipeline

import vdm
from tests.pretrained.tiny_dit import hunyuan_pipeline
from vdm.conditioning.llama_text import QUESTION
from vdm.pipelines.plan import plan, read_description
from vdm.pipelines.walk import times_of
from vdm.pretrained import export, load_schedule

PROMPTS, NEGATIVE, SEEDS = ["a cat runs", "the dogs"], "rain", [11, 5]
SIZE = {"height": 16, "width": 32, "num_frames": 5}
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


@pytest.fixture(scope="module")
def theirs():
    pipeline = hunyuan_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("hunyuan") / "model"
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def generate(folder):
    return vdm.load(folder)


@torch.no_grad()
def test_texts_are_told_alike(theirs, generate):
    states, pooled, mask = theirs.encode_prompt(PROMPTS)
    found = generate.text_encoder.encode(PROMPTS)
    count = found.text.shape[1]
    assert torch.equal(found.text_mask, mask[:, :count].float())
    assert not mask[:, count:].any()
    assert mask[:, :count].sum(1).tolist() != [count, count]
    for row, valid in enumerate(mask.bool()):
        torch.testing.assert_close(found.text[row, valid[:count]], states[row, valid])
    torch.testing.assert_close(found.pooled_text, pooled)
    alone = generate.text_encoder.encode(PROMPTS[1:])
    assert alone.text_mask is None
    torch.testing.assert_close(alone.text[0], states[1, mask[1].bool()])


def template_of(pipeline):
    return inspect.signature(pipeline.encode_prompt).parameters["prompt_template"].default


def test_the_question_is_theirs(theirs, generate):
    template = template_of(theirs)
    assert template["template"] == QUESTION
    assert template["crop_start"] == generate.text_encoder.num_question


def test_guidance_is_told_or_done(theirs, generate):
    common = {"generator": [torch.Generator().manual_seed(seed) for seed in SEEDS]}
    expected = theirs(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        true_cfg_scale=2.0,
        guidance_scale=4.0,
        num_inference_steps=2,
        output_type="pt",
        **SIZE,
        **common,
    ).frames.transpose(1, 2)
    asked = SIZE | {"steps": 2, "seed": SEEDS, "progress": False}
    both = generate(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        guidance_scale=2.0,
        cond={"guidance": 4.0},
        **asked,
    )
    assert float((both.frames - expected).abs().max()) < 1e-4
    told = generate(PROMPTS, guidance_scale=4.0, **asked)
    also = generate(PROMPTS, cond={"guidance": 4.0}, **asked)
    assert torch.equal(told.frames, also.frames)
    assert told.metadata["guidance_scale"] == 4.0
    assert not torch.allclose(told.frames, generate(PROMPTS, **asked).frames)
    with pytest.raises(ValueError, match="told its guidance scale"):
        generate(PROMPTS, negative_prompt=NEGATIVE, **asked)
    with pytest.raises(ValueError, match=r"got the ramp \(1.0, 3.0\), expected one number"):
        generate(PROMPTS, guidance_scale=(1.0, 3.0), **asked)


def test_a_long_prompt_is_cut_with_a_warning(generate):
    with pytest.warns(UserWarning, match="tokens, of which 256 are read"):
        states = generate.text_encoder.encode(["?!" * 300])
    assert states.text.shape[1] == 256


def test_published_defaults(generate, folder):
    defaults = generate.parts.defaults
    assert (defaults.num_frames, defaults.fps, defaults.steps) == (129, 24.0, 50)
    assert (defaults.height, defaults.width, defaults.guidance_scale) == (720, 1280, 6.0)
    times = times_of(generate, 50)
    assert times[:3].tolist() == pytest.approx([1.0, 0.99709302, 0.99408287])
    assert times[-2:].tolist() == pytest.approx([0.125, 0.0])
    rules = load_schedule(folder / "scheduler")
    assert rules.preconditioning.c_noise(rules.schedule, times[1:2]).item() == pytest.approx(
        997.093, abs=1e-3
    )


def test_a_model_comes_back_bit_for_bit(theirs, generate, tmp_path):
    export(generate, tmp_path / "back")
    back = HunyuanVideoPipeline.from_pretrained(tmp_path / "back")
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        state, own = getattr(theirs, name).state_dict(), getattr(back, name).state_dict()
        assert state.keys() == own.keys()
        assert all(torch.equal(value, own[key]) for key, value in state.items())
    assert back.tokenizer(PROMPTS).input_ids == theirs.tokenizer(PROMPTS).input_ids
    assert back.scheduler.config.shift == theirs.scheduler.config.shift
    export(generate, tmp_path / "ours", layout="vdm")
    asked = SIZE | {"steps": 1, "seed": SEEDS, "progress": False}
    again = vdm.load(tmp_path / "ours")(PROMPTS, **asked)
    assert torch.equal(again.frames, generate(PROMPTS, **asked).frames)


def test_a_folder_that_is_not_whole_is_refused(folder, tmp_path):
    index = json.loads((folder / "model_index.json").read_text())
    del index["tokenizer_2"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="has no tokenizer_2"):
        vdm.load(tmp_path)


def test_it_can_be_planned(generate, folder):
    stages = {stage.name: stage for stage in plan(read_description(folder), **SIZE, steps=7)}
    assert stages["network"].num_calls == 7  # the scale is told, not made of two predictions
    count = sum(p.numel() for p in generate.text_encoder.parameters())
    assert stages["text_encoder"].num_parameters == count
