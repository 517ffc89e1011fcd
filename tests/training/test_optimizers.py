"""Every parameter is trained by the rule that is meant for it, and both rules converge."""

import copy

import pytest
import torch
from torch import nn

from vdm.training.muon import MuonAdamW, orthogonalize
from vdm.training.optimizers import AdamWPlan, MuonPlan, split_parameters
from vdm.training.rates import CosineRate


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 5)
        self.patch_embed = nn.Linear(5, 6)
        self.hidden = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))
        self.position_embed = nn.Parameter(torch.zeros(3, 6))
        self.conv = nn.Conv3d(6, 4, (1, 2, 3), padding=(0, 1, 1))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, tokens):
        x = self.hidden(self.patch_embed(self.words(tokens)) + self.position_embed)
        return self.conv(x.mT.reshape(len(x), 6, 1, 1, 3)).mean((2, 3, 4))


def loss_of(model):
    tokens = torch.arange(12).reshape(4, 3) % 7
    target = torch.linspace(-1, 1, 16).reshape(4, 4)
    return (model(tokens) - target).square().mean()


@pytest.mark.parametrize("shape", [(8, 8), (5, 17), (17, 5)])
def test_orthogonalised_matrices_keep_their_vectors_and_lose_their_values(shape):
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.2, 3, min(shape))) @ vh
    result, _ = orthogonalize(torch.stack([matrix, torch.randn(shape)]))
    assert result.shape == matrix.shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    core = u.mT @ result @ vh.mT
    assert torch.allclose(core, torch.diag(core.diag()), atol=1e-4)


def test_half_precision_orthogonalises_all_the_same():
    matrix = torch.randn(1, 12, 30)
    exact, rounded = orthogonalize(matrix), orthogonalize(matrix, dtype=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.linalg.svdvals(rounded).min() > 0.5
    assert torch.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0) > 0.99


def test_a_plan_says_in_which_precision_muon_iterates():
    ends = []
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 5, bias=False)
        optimizer = MuonPlan(newton_schulz_dtype=dtype).optimizer(model)
        model(torch.ones(3, 6)).square().sum().backward()
        optimizer.step()
        ends.append(model.weight.detach())
    assert not torch.equal(*ends)
    assert torch.allclose(*ends, atol=1e-4)


def test_the_size_of_a_gradient_does_not_matter_to_muon():
    matrix = torch.randn(1, 4, 6)
    assert torch.allclose(orthogonalize(matrix), orthogonalize(1000 * matrix), atol=1e-4)


def test_parameters_of_one_shape_step_as_each_alone():
    layers = [nn.Linear(6, 5), nn.Conv1d(3, 5, 2), nn.Linear(5, 6)]
    for layer in layers:
        layer.weight.grad = torch.randn(layer.weight.shape)
    copies = copy.deepcopy(layers)
    for old, new in zip(layers, copies, strict=True):
        new.weight.grad = old.weight.grad
        MuonAdamW([new.weight], lr=0.1, orthogonal=True).step()
    MuonAdamW([layer.weight for layer in layers], lr=0.1, orthogonal=True).step()
    for one, other in zip(layers, copies, strict=True):
        assert torch.allclose(one.weight, other.weight, atol=1e-6)


def test_parameters_are_sorted_by_what_they_are():
    model = Model()
    names = {id(p): name for name, p in model.named_parameters()}
    hidden, outer, flat = (
        sorted(names[id(p)] for p in group) for group in split_parameters(model, ["patch_"])
    )
    assert hidden == ["conv.weight", "hidden.0.weight", "hidden.2.weight"]
    assert outer == ["patch_embed.weight"]
    assert {"words.weight", "position_embed", "conv.bias"} <= set(flat)
    assert not any("frozen" in name for name in hidden + outer + flat)


def test_vectors_and_embeddings_do_not_decay():
    model = Model()
    for plan in (AdamWPlan(weight_decay=0.3), MuonPlan(weight_decay=0.3)):
        groups = plan.optimizer(model).param_groups
        still = [p for group in groups if group["weight_decay"] == 0 for p in group["params"]]
        assert {id(p) for p in still} == {id(p) for p in split_parameters(model)[2]}


@pytest.mark.parametrize("plan", [AdamWPlan(lr=1e-2), MuonPlan(lr=1e-2, weight_decay=0.0)])
def test_every_plan_converges(plan):
    model = Model()
    optimizer = plan.optimizer(model)
    first = loss_of(model).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02 * first


def test_the_adamw_half_is_adamw():
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    pair = [
        (ours, MuonAdamW(ours.parameters(), **options)),
        (theirs, torch.optim.AdamW(theirs.parameters(), fused=True, **options)),
    ]
    x = torch.randn(7, 5)
    for _ in range(4):
        for model, optimizer in pair:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("plan", [AdamWPlan(), MuonPlan()])
def test_a_stored_optimiser_goes_on_bit_for_bit(plan, tmp_path):
    model = Model()
    settings = plan.configure(model, 10)

    def run(model, settings, steps):
        for _ in range(steps):
            settings["optimizer"].zero_grad()
            loss_of(model).backward()
            settings["optimizer"].step()
            settings["lr_scheduler"]["scheduler"].step()

    run(model, settings, 3)
    torch.save(
        [
            model.state_dict(),
            settings["optimizer"].state_dict(),
            settings["lr_scheduler"]["scheduler"].state_dict(),
        ],
        tmp_path / "state",
    )
    other = Model()
    again = plan.configure(other, 10)
    weights, optimizer, scheduler = torch.load(tmp_path / "state", weights_only=True)
    other.load_state_dict(weights)
    again["optimizer"].load_state_dict(optimizer)
    again["lr_scheduler"]["scheduler"].load_state_dict(scheduler)
    run(model, settings, 3)
    run(other, again, 3)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_rate_follows_the_schedule_of_the_plan():
    plan = AdamWPlan(lr=0.5, rate=CosineRate())
    settings = plan.configure(Model(), 4)
    rates = []
    for _ in range(4):
        rates.append(settings["optimizer"].param_groups[0]["lr"])
        settings["optimizer"].step()
        settings["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.5 * plan.rate.factor(step, 4) for step in range(4)])


def test_vectors_cannot_be_orthogonalised():
    with pytest.raises(ValueError, match=r"shape \(3,\), expected at least two axes"):
        MuonAdamW([{"params": [torch.zeros(3)], "orthogonal": True}])


def test_a_closure_is_called_once():
    model = Model()
    calls = []

    def closure():
        calls.append(1)
        loss = loss_of(model)
        loss.backward()
        return loss

    before = copy.deepcopy(model.state_dict())
    assert MuonPlan().optimizer(model).step(closure) is not None
    assert len(calls) == 1
    assert not torch.equal(before["conv.weight"], model.conv.weight)
