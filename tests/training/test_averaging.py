"""The average follows the weights as its formula says."""

import lightning as L
import pytest
import torch

from vdm.training.averaging import EMA


def test_the_average_forgets_its_start_at_first_and_less_later():
    ema = EMA(decay=0.9, warmup=4)
    average, value = torch.zeros(1), torch.ones(1)
    expected = 0.0
    for count in range(1, 40):
        decay = min(0.9, (1 + count) / (4 + count))
        expected = decay * expected + (1 - decay)
        ema._average([average], [value], count)
        assert average.item() == pytest.approx(expected)


def test_weights_that_do_not_move_stay_exact():
    ema, value = EMA(decay=0.999), torch.randn(100)
    average = value.clone()
    for count in range(1, 20):
        ema._average([average], [value], torch.tensor(count))
    assert torch.equal(average, value)


@pytest.mark.parametrize("arguments", [{"decay": 1.0}, {"decay": -0.1}, {"warmup": 0.5}])
def test_shares_that_are_none_are_refused(arguments):
    with pytest.raises(ValueError, match=r"expected \[0, 1\) and at least 1"):
        EMA(**arguments)


def test_there_is_no_average_before_a_run():
    with pytest.raises(ValueError, match="got no average yet"):
        EMA().raw_and_averaged(L.LightningModule())
