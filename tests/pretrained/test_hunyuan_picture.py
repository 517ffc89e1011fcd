"""HunyuanVideo-I2V makes the frames that diffusers makes of a picture, and goes back there."""

import json

import pytest
import torch
from diffusers import HunyuanVideoImageToVideoPipeline
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import to_pil_image
from transformers import LlavaConfig, LlavaModel

import vdm
from tests.pretrained.tiny_dit import SEEN_BY_THEM, hunyuan_pipeline, see_little
from vdm.conditioning.llava_text import QUESTION, LlavaClipEncoder
from vdm.pipelines.given import read_image
from vdm.pipelines.pictures import native
from vdm.pipelines.plan import plan, read_description
from vdm.pretrained import export
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.llama_folder import current_key, llava_entries, llava_parts

PROMPTS, SEEDS = ["a cat runs", "the dogs"], [11, 5]
SIZE = {"height": 16, "width": 32}
ASKED = {"steps": 2, "seed": SEEDS, "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


@pytest.fixture(scope="module")
def pictures():
    drawn = torch.rand(2, 3, 30, 50, generator=torch.Generator().manual_seed(1))
    return [to_pil_image(picture) for picture in drawn]


@pytest.fixture(scope="module", params=["i2v-concat", "i2v-replace"])
def both(request, tmp_path_factory):
    """Of either kind, and how many frames theirs makes beyond those that it returns."""
    theirs = hunyuan_pipeline(request.param)
    theirs.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp("hunyuan") / "model"
    theirs.save_pretrained(folder)
    return theirs, vdm.load(folder), 4 if request.param == "i2v-concat" else 0, folder


def told_to_them(theirs, pictures, prompts, every):
    return theirs.encode_prompt(
        pictures, prompts, prompt_template=see_little(), image_embed_interleave=every
    )


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:got a prompt of")
@pytest.mark.parametrize("prompts", [PROMPTS, ["a cat " * 200] * 2], ids=["short", "too long"])
def test_texts_are_told_in_sight_of_a_picture(both, pictures, prompts):
    theirs, ours, _, _ = both
    every, count = ours.text_encoder.every, len(prompts)
    rows = [
        told_to_them(theirs, [picture], [text], every)
        for picture, text in zip(pictures, prompts, strict=True)
    ]
    tensors = [native(picture) for picture in pictures]
    found = ours.text_encoder.encode(prompts, torch.cat(tensors))
    for row, (states, pooled, mask) in enumerate(rows):
        told = found.text[row]
        told = told if found.text_mask is None else told[found.text_mask[row] == 1]
        torch.testing.assert_close(told, states[0, mask[0].bool()])
        torch.testing.assert_close(found.pooled_text[row], pooled[0])
    assert len(found.text) == count
    assert not torch.allclose(found.text[0, 0], found.text[1, 0], atol=1e-3)


def test_the_question_is_theirs(both):
    encoder = both[1].text_encoder
    assert SEEN_BY_THEM["template"] == QUESTION
    assert (SEEN_BY_THEM["crop_start"], SEEN_BY_THEM["image_emb_start"]) == (
        encoder.num_question,
        encoder._place,
    )


def test_guidance_leads_away_from_a_black_picture(both, pictures):
    theirs, ours, surplus, _ = both
    draws = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    black = Image.new("RGB", (SIZE["width"], SIZE["height"]))
    # There the black picture is always read as the one kind reads it.
    names = [f"negative_{name}" for name in ("prompt_embeds", "pooled_prompt_embeds")]
    names.append("negative_prompt_attention_mask")
    away = told_to_them(theirs, [black] * 2, ["rain"] * 2, ours.text_encoder.every)
    expected = theirs(
        pictures,
        PROMPTS,
        true_cfg_scale=2.0,
        guidance_scale=4.0,
        num_inference_steps=2,
        num_frames=9 + surplus,
        generator=draws,
        output_type="pt",
        prompt_template=see_little(),
        **dict(zip(names, away, strict=True)),
        **SIZE,
    ).frames.transpose(1, 2)
    told = {} if surplus else {"cond": {"guidance": 4.0}}
    clip = ours(
        PROMPTS,
        image=pictures,
        negative_prompt=["rain"] * 2,
        guidance_scale=2.0,
        num_frames=9,
        **ASKED,
        **SIZE,
        **told,
    )
    assert clip.frames.shape == expected.shape
    assert expected.std() > 0.05
    assert float((clip.frames - expected).abs().max()) < 1e-4


def test_every_part_of_a_picture_counts(both, pictures):
    ours, asked = both[1], ASKED | SIZE | {"num_frames": 5, "steps": 1, "output": "latents"}
    one = ours(PROMPTS, image=pictures, **asked)
    assert one.shape[2] == 2
    assert not torch.allclose(one, ours(PROMPTS, image=pictures[::-1], **asked), atol=1e-3)
    alone = ours(PROMPTS[1], image=pictures[1], **asked | {"seed": SEEDS[1]})
    torch.testing.assert_close(alone, one[1:], atol=1e-5, rtol=1e-5)
    if ours.parts.given.keeps_given:
        pixels = read_image(pictures, SIZE["height"], SIZE["width"])
        torch.testing.assert_close(one[:, :, :1], ours.autoencoder.encode(pixels[:, :, None]))


def test_what_cannot_be_is_refused(both, pictures):
    ours, asked = both[1], ASKED | SIZE | {"num_frames": 5}
    with pytest.raises(ValueError, match="got no image, model 'model' needs one to move from"):
        ours(PROMPTS, **asked)
    with pytest.raises(ValueError, match="got given frames, model 'model' moves a picture"):
        ours(PROMPTS, image=pictures, video=torch.rand(3, 1, 16, 32), **asked)


def test_published_defaults(both):
    parts, is_ahead = both[1].parts, both[2] > 0
    assert parts.system == "HunyuanVideo-I2V" + ("-33ch" if is_ahead else "")
    assert (parts.defaults.num_frames, parts.defaults.steps) == (125 if is_ahead else 129, 50)
    assert parts.defaults.guidance_scale == (1.0 if is_ahead else 6.0)


@pytest.mark.parametrize("both", ["i2v-concat"], indirect=True)
def test_a_model_comes_back_bit_for_bit(both, pictures, tmp_path):
    theirs, ours, _, _ = both
    export(ours, tmp_path / "back")
    back = HunyuanVideoImageToVideoPipeline.from_pretrained(tmp_path / "back")
    for name in ("transformer", "vae", "text_encoder_2"):
        state, own = getattr(theirs, name).state_dict(), getattr(back, name).state_dict()
        assert state.keys() == own.keys()
        assert all(torch.equal(value, own[key]) for key, value in state.items())
    seeing = theirs.text_encoder.model.state_dict()
    own = back.text_encoder.state_dict()
    assert seeing.keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in seeing.items())
    again = vdm.load(tmp_path / "back")
    assert again.parts.describe()["defaults"] == ours.parts.describe()["defaults"]
    export(ours, tmp_path / "ours", layout="vdm")
    asked = ASKED | SIZE | {"num_frames": 5, "steps": 1, "image": pictures}
    frames = [vdm.load(tmp_path / name)(PROMPTS, **asked).frames for name in ("back", "ours")]
    assert torch.equal(frames[0], frames[1])
    assert torch.equal(frames[0], ours(PROMPTS, **asked).frames)


@pytest.mark.parametrize("both", ["i2v-concat"], indirect=True)
def test_older_names_of_weights_are_read(both, tmp_path):
    """Those that the published files have."""
    theirs, ours, _, folder = both
    (tmp_path / "model").mkdir()
    for path in folder.iterdir():
        if path.name != "text_encoder":
            (tmp_path / "model" / path.name).symlink_to(path)
    theirs.text_encoder.config.save_pretrained(tmp_path / "model" / "text_encoder")
    state = theirs.text_encoder.state_dict()
    older = {
        key.removeprefix("model.")
        .replace("vision_tower.", "vision_tower.vision_model.")
        .replace("language_model.", "language_model.model.")
        .replace("lm_head.", "language_model.lm_head."): value.contiguous()
        for key, value in state.items()
    }
    save_file(older, tmp_path / "model" / "text_encoder" / "model.safetensors")
    again, own = (one.text_encoder.state_dict() for one in (vdm.load(tmp_path / "model"), ours))
    assert all(torch.equal(value, again[key]) for key, value in own.items())


@pytest.mark.parametrize("both", ["i2v-concat"], indirect=True)
def test_it_can_be_planned(both):
    _, ours, surplus, folder = both
    found = plan(read_description(folder), **SIZE, num_frames=5, steps=7, guidance_scale=6.0)
    stages = {stage.name: stage for stage in found}
    assert stages["network"].num_calls == (14 if surplus else 7)
    count = sum(p.numel() for p in ours.text_encoder.parameters())
    assert stages["text_encoder"].num_parameters == count


@pytest.mark.parametrize("both", ["i2v-concat"], indirect=True)
def test_a_folder_without_eyes_is_refused(both, tmp_path):
    index = json.loads((both[3] / "model_index.json").read_text())
    (tmp_path / "transformer").symlink_to(both[3] / "transformer")
    del index["image_processor"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="has no image_processor"):
        vdm.load(tmp_path)


@pytest.mark.parametrize("both", ["i2v-concat"], indirect=True)
def test_the_published_encoder_has_the_keys_and_shapes_of_transformers(both):
    words = {"vocab_size": 128_320, "intermediate_size": 14_336, "num_key_value_heads": 8}
    eyes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    eyes |= {"num_attention_heads": 16, "image_size": 336, "patch_size": 14}
    config = {"text_config": words, "vision_config": eyes}
    known = {
        name: value | {"model_type": kind}
        for (name, value), kind in zip(config.items(), ("llama", "clip_vision_model"), strict=True)
    }
    with torch.device("meta"):
        theirs = LlavaModel(LlavaConfig(**known)).state_dict()
        ours = LlavaClipEncoder(**both[1].text_encoder._init_args | {"config": config})
        found = to_foreign(llava_parts(ours).state_dict(), llava_entries(ours))
    assert {key: value.shape for key, value in found.items()} == {
        current_key(key): value.shape for key, value in theirs.items()
    }
    assert ours.num_seen == 288
