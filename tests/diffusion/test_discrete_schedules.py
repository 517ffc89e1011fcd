import pytest
import torch
from jaxtyping import TypeCheckError

from vdm.diffusion.discrete_schedules import DDPMTable, betas_of
from vdm.diffusion.shifted_schedules import SNRShifted, ZeroTerminalSNR


def alpha_bar(schedule, *entries, num_steps=1000):
    t = (torch.tensor(entries, dtype=torch.float64) + 1) / num_steps
    return schedule.alpha(t) ** 2


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (DDPMTable("scaled_linear"), (0.99914998, 0.27633247, 0.00466010)),
        (DDPMTable("linear"), (0.99914998, 0.16077162, 0.00157896)),
        (DDPMTable("linear", 0.0001, 0.02), (0.99989998, 0.07779665, 4.03583e-5)),
    ],
    ids=str,
)
def test_published_tables_are_met(table, expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    # the published figures are products in float32
    torch.testing.assert_close(alpha_bar(table, 0, 500, 999), expected, rtol=3e-6, atol=2e-8)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (
            3.0,
            (0.9974543276, 0.9948006264, 0.3890537092, 0.0953281009, 0.0108389019, 6.2308e-8, 0),
        ),
        (
            1.0,
            (0.99915, 0.9982334461, 0.6524570153, 0.2410187828, 0.0327991181, 1.96789e-7, 0),
        ),
    ],
)
def test_cogvideox_is_a_shifted_table_that_ends_in_pure_noise(scale, expected):
    schedule = ZeroTerminalSNR(SNRShifted(DDPMTable(), scale))
    entries = (0, 1, 250, 500, 750, 998, 999)
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(alpha_bar(schedule, *entries), expected, rtol=1e-5, atol=5e-11)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos"])
def test_every_entry_is_the_product_of_the_betas(betas):
    table = DDPMTable(betas, 0.001, 0.02, num_steps=50)
    expected = torch.cumprod(1 - betas_of(table), 0)
    got = alpha_bar(table, *range(50), num_steps=50)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos"])
def test_betas_are_those_of_diffusers(betas):
    from diffusers import DDPMScheduler

    name = {"squaredcos": "squaredcos_cap_v2"}.get(betas, betas)
    reference = DDPMScheduler(beta_schedule=name, beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(
        betas_of(DDPMTable(betas)).float(), reference.betas, rtol=1e-6, atol=1e-7
    )


def test_log_snr_is_linear_between_entries():
    table = DDPMTable(num_steps=10)
    t = torch.tensor([0.4, 0.425, 0.5], dtype=torch.float64)
    low, between, high = table.log_snr(t).tolist()
    assert between == pytest.approx(0.75 * low + 0.25 * high)


def test_noise_level_is_linear_below_the_first_entry():
    table = DDPMTable(num_steps=10)
    t = torch.tensor([0.025, 0.1], dtype=torch.float64)
    quarter, first = table.edm_sigma(t).tolist()
    assert quarter == pytest.approx(first / 4)
    assert table.t_first == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta_start": 0.0}, "beta_start=0.0"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "beta_end=0.1"),
        ({"num_steps": 1}, "num_steps=1"),
    ],
)
def test_impossible_tables_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DDPMTable(**arguments)


def test_an_unknown_spacing_is_refused():
    with pytest.raises((ValueError, TypeCheckError), match="'cosine'"):
        DDPMTable("cosine")
