"""Descriptions of the parts that stay in float."""

from __future__ import annotations

import pytest

from dreamquant.results.floats import in_float


def layer(name, input_on_grid=True, weight_on_grid=True, weights=100):
    return {
        "name": name,
        "weights": weights,
        "input_on_grid": input_on_grid,
        "weight_on_grid": weight_on_grid,
    }


def coverage(**changes):
    return {
        "layers": [layer("a"), layer("b")],
        "left_in_float": [],
        "multiplications": 1000,
        "float_multiplications": 0,
        "float_weights": [],
        "float_functions": [],
    } | changes


def test_nothing_in_float():
    found = in_float(coverage())
    assert str(found) == "0.0 % of the multiplications; 0.0 % of the weights"
    assert found.warning == ""


def test_all_that_stays_in_float_is_named():
    found = in_float(
        coverage(
            layers=[layer("a", input_on_grid=False), layer("b", weight_on_grid=False)],
            left_in_float=["LSTM rnn", "matmul of computed tensors", "matmul of computed tensors"],
            float_multiplications=250,
            float_weights=[{"name": "rnn.weight_ih_l0", "count": 50}],
            float_functions=["layer_norm", "softmax", "layer_norm"],
        )
    )
    assert str(found) == (
        "25.0 % of the multiplications (LSTM rnn, 2 x matmul of computed tensors, a (its input), "
        "b (its weight)); 20.0 % of the weights (rnn.weight_ih_l0); "
        "2 x layer_norm, softmax"
    )
    assert found.warning == "25.0 % of the multiplications and 20.0 % of the weights run in float"


def test_many_names_are_cut_short():
    layers = [layer(str(i), input_on_grid=False) for i in range(7)]
    products = in_float(coverage(layers=layers)).products
    assert products.endswith("3 (its input) and 3 more")


@pytest.mark.parametrize(("multiplications", "warned"), [(50, False), (51, True)])
def test_a_few_percent_are_no_warning(multiplications, warned):
    assert bool(in_float(coverage(float_multiplications=multiplications)).warning) is warned


def test_results_of_before_they_were_counted_say_nothing():
    old = coverage()
    del old["multiplications"]
    assert in_float(old) is None
