"""Ranges of 8 bits leave room for larger values than drawn images reach."""

import pytest
import torch
from torch import nn

from dreamquant.quantization.logarithmic import LogQuantizer
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.recovery.activations import search_range
from dreamquant.recovery.room import Ranges
from dreamquant.recovery.walk import RangeMet


def quantizers_of(count, bits=8):
    return nn.ModuleList(
        ActivationQuantizer(bits, learned=False, clipped_gradient=False, momentum=0.9)
        for _ in range(count)
    )


class Holder(nn.Module):
    """As much of a student as setting ranges reads."""

    def __init__(self, count, bits=8):
        super().__init__()
        self.all = quantizers_of(count, bits)

    def activation_quantizers(self):
        return {str(i): quantizer for i, quantizer in enumerate(self.all)}


def placed(values, *, bits=8, room=2.0, image=None):
    holder = Holder(1, bits)
    Ranges(holder, lambda: image, 2.0, room).place(RangeMet("0", holder.all[0], [values]))
    return float(holder.all[0].scale)


def least(values, bits=8):
    return float(search_range([values], quantizers_of(1, bits)[0].grid, 2.0)[0])


NORMAL = torch.randn(4, 4000, generator=torch.Generator().manual_seed(0))


def test_a_range_is_extended_where_rounding_stays_negligible():
    assert placed(NORMAL) == pytest.approx(2 * least(NORMAL))
    assert placed(NORMAL, room=1.0) == least(NORMAL)
    assert placed(NORMAL, bits=4) == least(NORMAL, bits=4)


def test_it_ends_where_rounding_adds_a_thousandth_of_the_variance():
    values = torch.cat([NORMAL.flatten(), torch.tensor([14.0])])
    scale = placed(values)
    assert least(values) < scale < 2 * least(values)
    assert scale**2 / 12 == pytest.approx(1e-3 * float(values.var()), rel=1e-3)


def test_images_and_values_that_are_cut_off_keep_their_range():
    cut = NORMAL.clamp(-3, 2)
    assert placed(cut) == least(cut)
    assert placed(NORMAL, image=NORMAL) == least(NORMAL)


def test_a_rounded_tensor_is_not_rounded_again():
    holder = Holder(2)
    ranges = Ranges(holder, lambda: None, 2.0, 2.0)
    ranges.place(RangeMet("0", holder.all[0], [NORMAL]))
    rounded = holder.all[0](NORMAL)
    ranges.place(RangeMet("1", holder.all[1], [rounded.relu()]))
    assert torch.equal(holder.all[1](rounded), rounded)


def test_powers_of_two_end_at_the_largest_value():
    holder = Holder(0)
    powers = LogQuantizer(8, learned=False, clipped_gradient=False, momentum=0.9)
    rows = NORMAL.softmax(1)
    Ranges(holder, lambda: None, 2.0, 1.0).place(RangeMet("0", powers, [rows[:2], rows[2:]]))
    assert powers.scale == rows.max()
