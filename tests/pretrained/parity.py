"""How close models are to their references, part by part and as a whole.

Every family of systems has its own module, with the names of its ``SYSTEMS``, its ``REFERENCE``,
and ``pairs(system)``: for each part, what is made here beside what is made there. Of some
systems the autoencoder alone is measured.
"""

import torch

from tests.models.unet3d_oracles import relative_error
from tests.pretrained import (
    parity_dit,
    parity_hunyuan,
    parity_lavie,
    parity_open_sora_2,
    parity_opensora,
    parity_unet,
    parity_vae,
    parity_videocrafter,
    parity_wan,
)

FAMILIES = (
    parity_unet,
    parity_videocrafter,
    parity_lavie,
    parity_opensora,
    parity_open_sora_2,
    parity_dit,
    parity_wan,
    parity_hunyuan,
    parity_vae,
)
SYSTEMS = {system: family for family in FAMILIES for system in family.SYSTEMS}


@torch.no_grad()
def measure(system):
    """Largest absolute and relative L2 difference of every part, and of the frames.

    Args:
        system: One of ``SYSTEMS``.
    """
    return {part: _worst(pairs) for part, pairs in SYSTEMS[system].pairs(system).items()}


def _worst(pairs):
    differences = [float((one - other).abs().max()) for one, other in pairs]
    errors = [relative_error(one, other) for one, other in pairs]
    return {"max_abs": max(differences), "max_rel": max(errors)}
