"""Tiny reference U-Nets, and where each of their weights belongs in ours."""

import re

import torch

# From the reference's names to ours, in this order; most of it is renaming by position.
RENAMES = [
    (r"^conv_in\.", "embed."),
    (r"^conv_norm_out\.", "final.norm."),
    (r"^conv_out\.", "final.conv."),
    (r"^time_embedding\.linear_", "time_embed.fc"),
    (r"^add_embedding\.linear_", "scalar_embeds.fps__motion_bucket__noise_aug.fc"),
    (r"^fps_embedding\.linear_", "scalar_embeds.fps.fc"),
    (r"^transformer_in\.", "at_input.0."),
    (r"^(down|up)_blocks\.(\d+)\.(resnets|attentions|temp_convs|temp_attentions|motion_modules)"
     r"\.(\d+)\.", r"\1.\2.layers.\4.\3."),
    (r"^mid_block\.(resnets|attentions|temp_convs|temp_attentions|motion_modules)\.(\d+)\.",
     r"middle.\2.\1."),
    (r"^down_blocks\.(\d+)\.downsamplers\.0\.conv\.", r"down.\1.resize."),
    (r"^up_blocks\.(\d+)\.upsamplers\.0\.conv\.", r"up.\1.resize.conv."),
    (r"\.resnets\.spatial_res_block\.", ".resblock."),
    (r"\.resnets\.temporal_res_block\.", ".after_resblock.0."),
    (r"\.resnets\.time_mixer\.", ".after_resblock.0.blend."),
    (r"\.resnets\.", ".resblock."),
    (r"\.temp_convs\.conv(\d)\.0\.", r".after_resblock.0.norms.\1."),
    (r"\.temp_convs\.conv(\d)\.[23]\.", r".after_resblock.0.convs.\1."),
    (r"\.(temp_attentions|motion_modules)\.", ".after_transformer.0."),
    (r"\.attentions\.time_pos_embed\.linear_", ".transformer.blocks.1.frame_embed.embed.fc"),
    (r"\.attentions\.time_mixer\.", ".transformer.blocks.1.blend."),
    (r"\.attentions\.temporal_transformer_blocks\.0\.", ".transformer.blocks.1.block."),
    (r"\.attentions\.(?=norm|proj|transformer_blocks)", ".transformer."),
    (r"\.transformer_blocks\.", ".blocks."),
    (r"\.time_emb_proj\.", ".modulation."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.attn(\d)\.", r".attentions.\1."),
    (r"\.to_out\.0\.", ".to_out."),
    (r"\.(blocks\.\d+|block)\.norm([12])\.", r".\1.norms.\2."),
    (r"\.(blocks\.\d+|block)\.norm3\.", r".\1.norm_out."),
    (r"\.ff(_in)?\.net\.2\.", r".feedforward\1.fc2."),
]  # fmt: skip
ONE_BASED = re.compile(r"\.(norms|convs|attentions)\.(\d)\.")


def our_name(name):
    for pattern, ours in RENAMES:
        name = re.sub(pattern, ours, name)
    return ONE_BASED.sub(lambda found: f".{found[1]}.{int(found[2]) - 1}.", name)


def our_state(theirs, ours):
    """The reference's weights under our names and in our shapes; 1x1 kernels become matrices."""
    state = {}
    for name, value in theirs.items():
        if name.endswith("pos_embed.pe"):
            continue  # a table of sines and cosines
        if found := re.search(r"\.ff(_in)?\.net\.0\.proj\.(weight|bias)$", name):
            stem = our_name(name[: found.start()] + ".")
            for part, half in zip(("value", "gate"), value.chunk(2), strict=True):
                state[f"{stem}feedforward{found[1] or ''}.{part}.{found[2]}"] = half
            continue
        name = our_name(name)
        state[name] = value.reshape(ours[name].shape) if name in ours else value
    return state


def reference(cls, scale=1.0, **config):
    """A reference network with every parameter drawn anew, none of them zero.

    A small ``scale`` makes activations so small that what is added to their variance counts.
    """
    torch.manual_seed(0)
    net = cls(**config).eval()
    for name, parameter in net.named_parameters():
        is_norm = "norm" in name and parameter.ndim == 1
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        torch.nn.init.normal_(parameter, std=fan_in**-0.5 * (1.0 if is_norm else scale))
        if is_norm and name.endswith("weight"):
            parameter.data += 1.0
    return net


def load_reference(net, theirs):
    """Copy the weights of a reference into ours; every one on both sides is used."""
    net.load_state_dict(our_state(theirs.state_dict(), net.state_dict()), strict=True)
    return net.eval()


def relative_error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())
