"""ModelScope's own files and the folder of diffusers are one model, frame for frame."""

import json

import diffusers
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import vdm
from tests.models.unet3d_oracles import reference
from tests.pretrained.test_diffusers_export import same_weights
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from tests.pretrained.test_diffusers_vae import IMAGE
from tests.pretrained.test_original_svd import renamed, vae_state
from tests.pretrained.test_original_unet import original
from tests.pretrained.tiny_models import DDIM
from vdm.cli import main
from vdm.pretrained.original_modelscope import CONFIGURATION, FILES
from vdm.pretrained.original_text import open_clip_tokenizer

LAYERS, LENGTH, WIDTH = 2, 77, 64
TEXT_NAMES = [
    (r"^embeddings\.token_embedding", "token_embedding"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^final_layer_norm", "ln_final"),
    (r"^encoder\.layers", "transformer.resblocks"),
    (r"layer_norm", "ln_"),
    (r"self_attn\.out_proj", "attn.out_proj"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
]
SETTINGS = {
    "unet_in_dim": 4,
    "unet_dim": 32,
    "unet_y_dim": 768,
    "unet_context_dim": WIDTH,
    "unet_out_dim": 4,
    "unet_dim_mult": [1, 2],
    "unet_num_heads": 8,
    "unet_head_dim": 8,
    "unet_res_blocks": 1,
    "unet_attn_scales": [1],
    "unet_dropout": 0.1,
    "temporal_attention": "True",
    "num_timesteps": 1000,
    "mean_type": "eps",
    "var_type": "fixed_small",
    "loss_type": "mse",
}


def make_text_encoder():
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        hidden_act="gelu",
    )
    torch.manual_seed(0)
    model = CLIPTextModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def text_state(encoder):
    """open-clip's names; there is one layer more, and a way to images."""
    state, theirs = {}, encoder.state_dict()
    for key, value in theirs.items():
        if ".q_proj." in key:
            parts = [theirs[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            block, kind = key.split(".self_attn")[0], key.rpartition(".")[2]
            state[renamed(f"{block}.attn.in_proj_{kind}", TEXT_NAMES)] = torch.cat(parts)
        elif ".k_proj." not in key and ".v_proj." not in key:
            state[renamed(key, TEXT_NAMES)] = value
    last = f"resblocks.{LAYERS - 1}."
    more = {k.replace(last, f"resblocks.{LAYERS}."): v + 1 for k, v in state.items() if last in k}
    odds = {"logit_scale": torch.ones(()), "text_projection": torch.ones(WIDTH, 8)}
    return state | more | odds | {"visual.proj": torch.ones(3, 2)}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    words = tmp_path_factory.mktemp("words")
    for name, text in open_clip_tokenizer().items():
        (words / name).write_text(text)
    tokenizer = CLIPTokenizer.from_pretrained(words, pad_token="!")
    config = COMMON | TINY[diffusers.UNet3DConditionModel] | {"cross_attention_dim": WIDTH}
    vae = IMAGE | {"latent_channels": 4, "scaling_factor": 0.18215, "norm_num_groups": 32}
    vae |= {"block_out_channels": (32, 64), "down_block_types": ["DownEncoderBlock2D"] * 2}
    return diffusers.TextToVideoSDPipeline(
        vae=reference(
            diffusers.AutoencoderKL, 0.7, **vae | {"up_block_types": ["UpDecoderBlock2D"] * 2}
        ),
        text_encoder=make_text_encoder(),
        tokenizer=tokenizer,
        unet=reference(diffusers.UNet3DConditionModel, 0.7, **config),
        scheduler=diffusers.DDIMScheduler(**DDIM),
    )


@pytest.fixture
def folder(theirs, tmp_path):
    """As the authors ship it: the autoencoder lies in the file of a whole image model."""
    unet = original(theirs.unet, {"up": "1", "last": "3", "kernels": True})
    torch.save(unet, tmp_path / FILES["ckpt_unet"])
    vae = {f"first_stage_model.{key}": value for key, value in vae_state(theirs.vae).items()}
    whole = {"state_dict": vae | {"model.diffusion_model.out.2.bias": torch.ones(4)}}
    torch.save(whole, tmp_path / FILES["ckpt_autoencoder"])
    torch.save(text_state(theirs.text_encoder), tmp_path / FILES["ckpt_clip"])
    write_settings(tmp_path)
    return tmp_path


def write_settings(folder, kind="latent-text-to-video-synthesis", **changes):
    model = {
        "type": kind,
        "model_args": {**FILES, "max_frames": 4, "tiny_gpu": 1},
        "model_cfg": SETTINGS | changes,
    }
    said = {"framework": "pytorch", "task": "text-to-video-synthesis", "model": model}
    (folder / CONFIGURATION).write_text(json.dumps(said))


def test_the_files_and_the_folder_are_one_model(theirs, folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("diffusers")
    theirs.save_pretrained(other)
    one, two = vdm.load(folder), vdm.load(other)
    for name, module in two.parts.modules.items():
        state = one.parts.modules[name].state_dict()
        assert state.keys() == module.state_dict().keys()
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    same = ("schedule", "target", "preconditioning", "given", "system")
    for name in same:
        assert getattr(one.parts, name) == getattr(two.parts, name), name
    defaults = one.parts.defaults
    assert (defaults.num_frames, defaults.fps, defaults.steps) == (4, 8.0, 50)
    assert (defaults.height, defaults.width, defaults.guidance_scale) == (256, 256, 9.0)
    asked = {"height": 16, "width": 24, "steps": 2, "seed": 7, "progress": False}
    with pytest.warns(UserWarning, match="not trained on"):
        frames = [made(["a cat", "dogs, 4k"], **asked, num_frames=4).frames for made in (one, two)]
    assert torch.equal(*frames)


def test_diffusers_loads_what_is_made_of_the_files(theirs, folder, tmp_path, capsys):
    words = ["convert", str(folder), str(tmp_path / "back"), "--layout", "diffusers"]
    assert main(words) == 0
    assert "in diffusers '!' fills short texts" in capsys.readouterr().err
    again = type(theirs).from_pretrained(tmp_path / "back")
    same_weights(again, theirs)
    texts = {"padding": "max_length", "max_length": LENGTH}
    found, expected = (made.tokenizer("a cat, 4k", **texts).input_ids for made in (again, theirs))
    assert found == expected
    assert found[-1] == 0


def test_an_autoencoder_in_a_file_of_its_own(theirs, folder):
    state = vae_state(theirs.vae) | {"loss.logvar": torch.ones(())}
    torch.save({"state_dict": state}, folder / FILES["ckpt_autoencoder"])
    ours = vdm.load(folder).autoencoder
    assert torch.equal(ours.encoder.embed.bias, theirs.vae.encoder.conv_in.bias)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "image-to-video"}, "got a model of type 'image-to-video', expected 'latent-"),
        ({"unet_in_dim": 9}, "json: got unet_in_dim=9, expected 4"),
        ({"mean_type": "x0"}, "json: got mean_type='x0', expected 'eps'"),
        ({"temporal_attention": "False"}, "got temporal_attention='False', expected 'True'"),
        ({"wings": 2}, "json: got wings=2, which nothing reads"),
        (
            {"unet_dim": 64},
            r"pth: input_blocks.0.0.weight has shape \(32, 4, 3, 3\), UNet3D expects \(64",
        ),
        ({"unet_res_blocks": 2}, r"pth: misses input_blocks\."),
    ],
)
def test_settings_that_do_not_fit_are_named(folder, changes, message):
    write_settings(folder, **changes)
    with pytest.raises(ValueError, match=message):
        vdm.load(folder)


@pytest.mark.parametrize("name", FILES.values())
def test_files_that_are_missing_or_hold_something_else_are_named(folder, name):
    torch.save({"weight": torch.ones(2)}, folder / name)
    with pytest.raises(ValueError, match=rf"{name}: (got a file of no known|holds no)"):
        vdm.load(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no file .*{name}"):
        vdm.load(folder)
