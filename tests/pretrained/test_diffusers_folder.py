"""Component folders as diffusers writes them are read, and those written here diffusers reads."""

import json

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel

from tests.models.unet3d_oracles import reference, relative_error
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from vdm.models.unet3d import UNet3D
from vdm.pretrained import export, load_network
from vdm.pretrained.diffusers_files import open_weights
from vdm.pretrained.diffusers_folder import load_unet, save_unet
from vdm.types import Conditioning

PLAIN = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def modelscope():
    return reference(UNet3DConditionModel, **COMMON, **TINY[UNet3DConditionModel])


@pytest.fixture
def folder(modelscope, tmp_path):
    modelscope.save_pretrained(tmp_path)
    return tmp_path


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


@pytest.mark.parametrize(
    "saving",
    [{}, {"max_shard_size": "200KB"}, {"variant": "fp16"}, {"safe_serialization": False}],
    ids=str,
)
@torch.no_grad()
def test_a_folder_gives_the_network_that_wrote_it(modelscope, saving, tmp_path):
    modelscope.save_pretrained(tmp_path, **saving)
    if "max_shard_size" in saving:
        assert len(list(tmp_path.glob("*-of-*"))) > 2
    ours = load_unet(tmp_path)
    x, steps, text = torch.randn(2, 4, 3, 8, 12), torch.tensor([7.0, 900.0]), torch.randn(2, 5, 16)
    expected = modelscope(x, steps, text).sample
    assert relative_error(ours(x, steps, Conditioning(text=text)), expected) < 1e-5
    assert not ours.training


@pytest.mark.parametrize("cls", TINY, ids=lambda cls: cls.__name__)
def test_diffusers_reads_what_is_written_here(cls, tmp_path):
    theirs = reference(cls, **COMMON, **TINY[cls])
    theirs.save_pretrained(tmp_path / "theirs")
    export(load_network(tmp_path / "theirs"), tmp_path / "ours")
    again, told = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    tables = {key for key in told["missing_keys"] if key.endswith("pos_embed.pe")}
    assert set(told["missing_keys"]) == tables
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    assert equal(again.state_dict(), theirs.state_dict())


def test_a_variant_is_chosen_by_name(modelscope, tmp_path):
    modelscope.save_pretrained(tmp_path)
    half = reference(UNet3DConditionModel, **COMMON, **TINY[UNet3DConditionModel]).half()
    half.save_pretrained(tmp_path, variant="fp16")
    assert open_weights(tmp_path)["conv_in.bias"].dtype == torch.float32
    assert open_weights(tmp_path, "fp16")["conv_in.bias"].dtype == torch.float16
    with pytest.raises(FileNotFoundError, match="no weights of variant 'int4' in"):
        open_weights(tmp_path, "int4")
    half.save_pretrained(tmp_path, variant="bf16")
    (tmp_path / PLAIN).unlink()
    with pytest.raises(ValueError, match="expected one to be named"):
        open_weights(tmp_path)


def test_any_image_model_takes_a_motion_adapter(tmp_path):
    image = reference(UNet2DConditionModel, **COMMON, **TINY[UNet2DConditionModel])
    adapter = reference(
        MotionAdapter,
        block_out_channels=(32, 64),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
    )
    image.save_pretrained(tmp_path / "image")
    adapter.save_pretrained(tmp_path / "motion")
    ours = load_unet(tmp_path / "image", motion=tmp_path / "motion")
    theirs = UNetMotionModel.from_unet2d(image, adapter).eval()
    x, steps, text = torch.randn(2, 4, 3, 8, 12), torch.tensor([7.0, 900.0]), torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = theirs(x, steps, text.repeat_interleave(3, dim=0)).sample
        assert relative_error(ours(x, steps, Conditioning(text=text)), expected) < 1e-5


def test_weights_stay_where_they_lie(folder):
    before = open_weights(folder)
    ours = load_unet(folder)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert not any(p.is_meta for p in [*ours.parameters(), *ours.buffers()])
    assert torch.equal(ours.embed.weight, before["conv_in.weight"])


def damage(folder, what):
    path = folder / PLAIN
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "missing":
        path.unlink()
    elif what == "not JSON":
        (folder / "config.json").write_text("{")
    elif what == "a list":
        (folder / "config.json").write_text("[]")
    elif what == "no config":
        (folder / "config.json").unlink()
    elif what == "pickle":
        path.unlink()
        torch.save({"a": Exception("run me")}, folder / "diffusion_pytorch_model.bin")
    elif what == "index":
        (folder / f"{PLAIN}.index.json").write_text(json.dumps({"weight_map": {}}))
        path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "diffusion_pytorch_model.safetensors: the file is truncated or damaged"),
        ("missing", "no weights in .*, expected e.g. diffusion_pytorch_model.safetensors"),
        ("not JSON", "config.json: not JSON"),
        ("a list", "config.json: got list, expected a JSON object"),
        ("no config", "no config.json in"),
        ("pickle", "refused: it pickles objects other than tensors"),
        ("index", "index.json: has no weight_map"),
    ],
)
def test_damaged_folders_are_named(folder, what, message):
    damage(folder, what)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_unet(folder)


def test_shards_and_their_index_must_agree(modelscope, tmp_path):
    modelscope.save_pretrained(tmp_path, max_shard_size="200KB")
    index = tmp_path / f"{PLAIN}.index.json"
    places = json.loads(index.read_text())
    places["weight_map"]["sail"] = next(iter(places["weight_map"].values()))
    index.write_text(json.dumps(places))
    with pytest.raises(ValueError, match="sail is in the index or in a shard, but not in both"):
        load_unet(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv_in.bias"), "misses conv_in.bias"),
        (lambda state: state.update(sail=torch.ones(1)), "holds sail, for which there is no place"),
        (lambda state: state.update({"conv_in.bias": torch.ones(3)}), r"has shape \(3,\)"),
        (
            lambda state: state["conv_in.bias"].fill_(torch.nan),
            "conv_in.bias holds NaN or infinite",
        ),
    ],
    ids=["missing", "surplus", "shape", "NaN"],
)
def test_weights_that_do_not_fit_are_named(folder, change, message):
    state = {key: value.clone() for key, value in open_weights(folder).items()}
    change(state)
    (folder / PLAIN).unlink()
    torch.save({"state_dict": state}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=message):
        load_unet(folder)


def test_weights_of_another_type_are_stored_if_asked_for(folder, tmp_path):
    export(load_unet(folder), tmp_path / "half", dtype=torch.float16)
    again = load_unet(tmp_path / "half")
    assert {p.dtype for p in again.parameters()} == {torch.float16}
    assert torch.equal(again.embed.weight, load_unet(folder).embed.weight.half())


def test_a_network_of_our_own_has_no_class_there(tmp_path):
    with pytest.raises(ValueError, match="diffusers has no class for this UNet3D"):
        save_unet(UNet3D(4), tmp_path)
