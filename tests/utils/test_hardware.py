"""What the processor is said to have."""

import torch

from vdm.utils import hardware


def test_a_processor_has_bfloat16_if_it_multiplies_in_it(monkeypatch):
    flags = {"avx2": True, "avx512_bf16": False, "cpu_name": "bf16"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert not hardware.has_bfloat16()
    assert hardware.processor_flags() == {"avx2": True, "avx512_bf16": False}
    flags["avx512_bf16"] = True
    assert hardware.has_bfloat16()


def test_a_torch_that_does_not_tell_has_no_flags(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert hardware.processor_flags() == {}
    assert not hardware.has_bfloat16()
