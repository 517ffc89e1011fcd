"""Published models by the name that they have on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vdm.pretrained.loading import Reading

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SETTINGS = ("*.json", "*.txt", "*.model")
"""Files that are read beside weights, of which those in other formats stay where they are."""


def is_hub_id(source: str | Path) -> bool:
    """Whether a source looks like ``owner/name`` and leads nowhere here."""
    owner = Path(source).parts[:1]
    return bool(HUB_ID.fullmatch(str(source))) and not Path(*owner).exists()


def fetch(
    source: str,
    how: Reading = Reading(),  # noqa: B008 (frozen)
    more: Iterable[str] = (),
) -> Path:
    """The folder of a published model, taken from the hub unless it is in the local cache already.

    Of files that come in several precisions too, the plain ones are taken unless others are named.

    Args:
        source: ``owner/name``.
        how: How weights are read; those that are not, stay where they are.
        more: Further files.

    Raises:
        FileNotFoundError: If the hub has no such model, or cannot be reached and the cache does not
            hold it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"got model {source!r}: no such path here, and without huggingface-hub nothing is "
            "fetched (pip install 'vdm[hub]')"
        ) from error
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted, unwanted = [*SETTINGS, "*.safetensors"], ["*.fp16.*", "*.fp16-*", "*.non_ema.*"]
    if how.variant is not None:
        weights = (f"*.{how.variant}{behind}.safetensors" for behind in ("", "-*"))
        wanted, unwanted = [*SETTINGS, *weights], []
    if how.is_plan:
        wanted = list(SETTINGS)
    wanted += more
    try:
        folder = snapshot_download(source, allow_patterns=wanted, ignore_patterns=unwanted)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"got model {source!r}: no such path here, and the hub does not give it: {reason}"
        ) from error
    return Path(folder)
