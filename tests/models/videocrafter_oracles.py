"""VideoCrafter out of diffusers' parts: its U-Net for ModelScope, and plain code for what differs.

diffusers has no class for VideoCrafter. Its networks are that of ModelScope and up to three things
more: the frame rate in the embedding of the noise level, learned vectors for distances in temporal
attention, a picture beside the words.
"""

import math

import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from torch import nn

from tests.models.unet3d_oracles import our_state, reference

CONFIG = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "attention_head_dim": 8,
}
MAX_DISTANCE = 16
KINDS = {
    "videocrafter2": ("fps",),
    "videocrafter1_512": ("relative",),
    "videocrafter1_1024": ("relative", "fps"),
    "videocrafter1_image": ("fps", "image"),
}


class RelativeProcessor(nn.Module):
    """Shaw et al. 2018, eq. 3-4, one query after the other."""

    def __init__(self, head_dim):
        super().__init__()
        self.table_k = nn.Parameter(torch.randn(2 * MAX_DISTANCE + 1, head_dim))
        self.table_v = nn.Parameter(torch.randn(2 * MAX_DISTANCE + 1, head_dim))

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        assert encoder_hidden_states is None
        maps = (attn.to_q, attn.to_k, attn.to_v)
        q, k, v = (attn.head_to_batch_dim(linear(hidden_states)) for linear in maps)
        found = []
        for i in range(q.shape[1]):
            places = torch.arange(k.shape[1]) - i
            places = places.clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
            keys, values = k + self.table_k[places], v + self.table_v[places]
            scores = (keys * q[:, i : i + 1]).sum(-1) / math.sqrt(q.shape[2])
            found.append((scores.softmax(-1).unsqueeze(-1) * values).sum(1))
        return attn.to_out[0](attn.batch_to_head_dim(torch.stack(found, dim=1)))


class PictureProcessor(IPAdapterAttnProcessor):
    """That of diffusers; the last tokens of what it attends to are those of the picture."""

    def __call__(self, attn, hidden_states, encoder_hidden_states, **_):
        sizes = (encoder_hidden_states.shape[1] - self.num_tokens[0], self.num_tokens[0])
        words, picture = encoder_hidden_states.split(sizes, dim=1)
        return super().__call__(attn, hidden_states, (words, [picture]))


class Reference:
    """One of the networks, every parameter drawn anew.

    Args:
        kind: One of ``KINDS``.
        scale: Of the weights.
        num_tokens: Of the picture.
    """

    def __init__(self, kind, scale=1.0, num_tokens=4):
        self.parts = KINDS[kind]
        self.unet = reference(UNet3DConditionModel, scale, **CONFIG)
        self.fps, self.num_tokens = None, num_tokens
        width, dim = CONFIG["block_out_channels"][0], 4 * CONFIG["block_out_channels"][0]
        self.fps_mlp = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))
        if "fps" in self.parts:
            self.unet.time_embedding.register_forward_hook(self._add_fps)
        for name, module in list(self.unet.named_modules()):
            in_time = "temp_attentions" in name or name.startswith("transformer_in")
            is_attention = name.split(".")[-1] in ("attn1", "attn2")
            if "relative" in self.parts and name.endswith("conv4.3"):
                nn.init.zeros_(module.weight)  # nothing is convolved over time
                nn.init.zeros_(module.bias)
            if "relative" in self.parts and in_time and is_attention:
                module.set_processor(RelativeProcessor(8))
            if "image" in self.parts and not in_time and name.endswith("attn2"):
                sizes = (module.to_q.out_features, module.to_k.in_features, num_tokens)
                module.set_processor(PictureProcessor(*sizes))

    def _add_fps(self, module, inputs, output):
        frequencies = torch.tensor([10_000 ** (-k / 16) for k in range(16)])
        angles = self.fps[:, None] * frequencies
        return output + self.fps_mlp(torch.cat((angles.cos(), angles.sin()), dim=1))

    @torch.no_grad()
    def __call__(self, x, steps, text, fps=None, image=None):
        self.fps = fps
        context = text if image is None else torch.cat((text, image), dim=1)
        return self.unet(x, steps, context).sample

    def state(self):
        """Weights by diffusers' names, and ``fps_embedding`` besides; no others' convolutions."""
        state = dict(self.unet.state_dict())
        if "relative" in self.parts:
            state = {key: value for key, value in state.items() if "temp_convs" not in key}
        if "fps" in self.parts:
            state |= {f"fps_embedding.{k}": v for k, v in self.fps_mlp.state_dict().items()}
        return state

    def our_state(self, ours):
        """The same under our names."""
        state = {}
        for key, value in self.state().items():
            if key.startswith("fps_embedding."):
                number, kind = key.split(".")[1:]
                state[f"scalar_embeds.fps.fc{1 + int(number) // 2}.{kind}"] = value
            elif ".processor." in key:
                stem, rest = key.split(".processor.")
                like = f"{stem}.to_k.weight"
                (name,) = our_state({like: value}, {})
                place = {
                    "table_k": "relative_k.table",
                    "table_v": "relative_v.table",
                    "to_k_ip.0.weight": "to_k_image.weight",
                    "to_v_ip.0.weight": "to_v_image.weight",
                }[rest]
                state[name.replace("to_k.weight", place)] = value
            else:
                state |= our_state({key: value}, ours)
        return state
