"""What the processor can do that changes how a run should be set up."""

import torch


def processor_flags() -> dict[str, bool]:
    """Instruction sets of the processor by name; empty where torch does not tell."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {name: value for name, value in found.items() if isinstance(value, bool)}


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; otherwise it is ten times slower there."""
    flags = processor_flags()
    return any(flags.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
