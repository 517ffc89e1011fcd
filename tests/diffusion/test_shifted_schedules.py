import pytest
import torch

from vdm.diffusion import time_grids
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.schedules import EDM, LinearPath, VPLinear
from vdm.diffusion.shifted_schedules import (
    Faded,
    Shifted,
    SNRShifted,
    ZeroTerminalSNR,
    shift_for,
    shift_time,
)

T = torch.linspace(0.01, 0.99, 61, dtype=torch.float64)


def test_the_shift_keeps_the_ends_and_has_the_reciprocal_as_inverse():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.equal(shift_time(ends, 7.0), ends)
    torch.testing.assert_close(shift_time(shift_time(T, 7.0), 1 / 7), T)


def test_the_mean_of_a_longer_sequence_is_as_uncertain_at_its_shifted_time():
    path, tokens, base = LinearPath(), 13 * 30 * 45, 256
    shifted = shift_time(T, shift_for(tokens, base))
    torch.testing.assert_close(path.edm_sigma(shifted) / tokens**0.5, path.edm_sigma(T) / base**0.5)
    assert shift_for(base, base) == 1
    assert shift_for(4096, 1024) == 2
    with pytest.raises(ValueError, match="got tokens=5, base_tokens=0, expected more than 0"):
        shift_for(5, 0)


def test_a_shift_multiplies_the_noise_level_of_the_linear_path():
    shifted = Shifted(LinearPath(), 3.0)
    torch.testing.assert_close(shifted.edm_sigma(T), 3 * LinearPath().edm_sigma(T))


def test_shifted_schedule_at_uniform_times_is_the_schedule_at_shifted_times():
    table = DDPMTable()
    torch.testing.assert_close(
        Shifted(table, 3.0).alpha(time_grids.uniform(7)), table.alpha(time_grids.shifted(7, 3.0))
    )


def test_networks_are_told_the_time_of_the_unshifted_path():
    twice = Shifted(Shifted(LinearPath(), 3.0), 2.0)
    torch.testing.assert_close(twice.path_time(T), LinearPath().t_from_log_snr(twice.log_snr(T)))


def test_the_first_time_of_a_shifted_table_is_its_first_entry():
    shifted = Shifted(DDPMTable(), 3.0)
    first = torch.tensor(shifted.t_first, dtype=torch.float64)
    assert shifted.path_time(first).item() == pytest.approx(1 / 1000)


@pytest.mark.parametrize("base", [LinearPath(), VPLinear(), EDM(), DDPMTable()], ids=str)
def test_the_snr_is_divided_and_the_variance_kept(base):
    shifted = SNRShifted(base, 3.0)
    log_three = torch.full_like(T, 3.0).log()
    torch.testing.assert_close(shifted.log_snr(T), base.log_snr(T) - log_three)
    torch.testing.assert_close(
        shifted.alpha(T) ** 2 + shifted.sigma(T) ** 2, base.alpha(T) ** 2 + base.sigma(T) ** 2
    )


def test_snr_shift_of_a_table_is_the_published_formula():
    alpha_bar = DDPMTable().alpha(T) ** 2
    torch.testing.assert_close(
        SNRShifted(DDPMTable(), 3.0).alpha(T) ** 2, alpha_bar / (3 + (1 - 3) * alpha_bar)
    )


def test_zero_terminal_snr_keeps_the_first_entry_of_a_table():
    table, rescaled = DDPMTable(), ZeroTerminalSNR(DDPMTable())
    t = torch.tensor([0.0004, 0.001], dtype=torch.float64)
    torch.testing.assert_close(rescaled.alpha(t), table.alpha(t), rtol=1e-14, atol=0)


def test_zero_terminal_snr_is_that_of_diffusers():
    from diffusers import DDIMScheduler

    reference = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
    )
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    alpha_bar = ZeroTerminalSNR(DDPMTable()).alpha(t) ** 2
    torch.testing.assert_close(alpha_bar.float(), reference.alphas_cumprod, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shifted(LinearPath(), 0.0), "shift=0.0"),
        (lambda: SNRShifted(LinearPath(), -1.0), "scale=-1.0"),
        (lambda: ZeroTerminalSNR(LinearPath()), "got LinearPath, expected a variance-preserving"),
    ],
)
def test_impossible_changes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("end", [0.3, 0.7])
def test_the_fade_is_the_published_table(end):
    published = torch.cat([torch.linspace(1, end, 400).double(), torch.full((600,), end).double()])
    entries = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    faded, table = Faded(DDPMTable(), end), DDPMTable()
    torch.testing.assert_close(faded.fade(entries), published, rtol=1e-7, atol=0)
    torch.testing.assert_close(faded.alpha(entries), table.alpha(entries) * faded.fade(entries))
    assert torch.equal(faded.sigma(entries), table.sigma(entries))
    assert torch.equal(Faded(table, 1.0).alpha(entries), table.alpha(entries))
    assert faded.start_std(0.98) == table.start_std(0.98) == pytest.approx(1)
    assert faded.prior_std(0.3) < 1


def test_a_fade_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="got end=0, expected more than 0"):
        Faded(DDPMTable(), 0)
    with pytest.raises(ValueError, match=r"got until=0.001, expected more than 0.001"):
        Faded(DDPMTable(), 0.7, 0.001)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos"])
def test_schedules_are_made_while_modules_are_built_without_data(betas):
    with torch.device("meta"):
        schedule = ZeroTerminalSNR(SNRShifted(DDPMTable(betas, num_steps=17), 3.0))
        prior = schedule.prior_std(1.0)
    assert prior == pytest.approx(1)
    assert schedule.sigma(torch.tensor(1.0)).item() == pytest.approx(1)
