"""Single parts come out of a model as they are in it, and models can be put together anew."""

import pytest
import torch
from tiny_model import make_parts

from vdm.pretrained import convert, export, load_autoencoder, load_network, read


@pytest.fixture
def folder(tmp_path):
    return export(make_parts(), tmp_path / "model", layout="vdm")


def test_parts_alone_are_those_of_the_model(folder):
    parts = make_parts()
    for part, load in ((parts.network, load_network), (parts.autoencoder, load_autoencoder)):
        found = load(folder)
        assert not found.training
        for key, value in part.state_dict().items():
            assert torch.equal(found.state_dict()[key], value)


def test_another_decoder_of_the_same_latents_may_take_the_place(folder, tmp_path):
    other = make_parts()
    other.network = other.text_encoder = None
    other.autoencoder.decoder[0].weight.data += 1
    decoder = export(other, tmp_path / "decoder", layout="vdm")
    parts = read(convert(folder, tmp_path / "both", autoencoder=decoder))
    assert torch.equal(parts.autoencoder.decoder[0].weight, other.autoencoder.decoder[0].weight)
    assert torch.equal(parts.network.patch_embed.weight, make_parts().network.patch_embed.weight)
    other.autoencoder.encoder[0].weight.data += 1
    stranger = export(other, tmp_path / "stranger", layout="vdm")
    for wrong in (stranger, export(make_parts(autoencoder=None), tmp_path / "none", layout="vdm")):
        with pytest.raises(ValueError, match="expected an autoencoder of the same latents"):
            convert(folder, tmp_path / "never", autoencoder=wrong)
