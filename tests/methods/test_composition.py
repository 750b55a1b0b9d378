from __future__ import annotations

import pytest
import torch

from dreamquant.errors import MethodError
from dreamquant.methods import ADD_ONS, METHODS, find_method
from dreamquant.recovery.views import Mixup
from dreamquant.synthesis.targets import LowCorrelation, OneHot, low_correlation_table
from dreamquant.terms.contract import weighted

SMALL = (3, 32, 32)


def names(method):
    images = find_method(method).resolved("quick", SMALL).images
    return [term.name for term in weighted(images.terms)]


def test_an_add_on_joins_terms_targets_and_mixing():
    method = find_method("adadfq+ris+agm").resolved("quick", SMALL)
    assert [term.name for term in weighted(method.images.terms)] == [
        "Band",
        "Balance",
        "BatchNormStatistics",
        "InputRobustness",
        "WeightRobustness",
        "GaussianMargin",
    ]
    assert method.images.targets == LowCorrelation()
    assert method.recovery[-1].views == (Mixup(),)


def test_order_of_add_ons_does_not_matter_to_the_terms():
    assert sorted(names("gdfq+ris+agm")) == sorted(names("gdfq+agm+ris"))


def test_standing_alone_is_the_add_on_on_gdfq():
    assert names("ris") == names("gdfq+ris")
    assert names("agm") == names("gdfq+agm")


def test_add_ons_join_presets_with_terms_of_their_own():
    method = find_method("adadfq+agm").resolved("paper-resnet50-w3", (3, 224, 224))
    terms = weighted(method.images.terms)
    assert terms[0].term.lower == 0.4
    assert terms[-1].name == "GaussianMargin"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acq+ris", "the method and ris ask images for different targets"),
        ("adadfq+ris+ris", "InputRobustness would count twice"),
        ("ris+ris", "InputRobustness would count twice"),
        ("gdfq+agm+agm", "GaussianMargin would count twice"),
        ("adadfq+adasg", "there is no add-on 'adasg'"),
        ("adadfq+riz", "there is no add-on 'riz'"),
    ],
)
def test_conflicts_are_refused(name, message):
    with pytest.raises(MethodError, match=message.replace("+", r"\+")):
        find_method(name)


def test_adasg_is_adadfq_with_its_own_numbers():
    adasg, adadfq = METHODS["adasg"], METHODS["adadfq"]
    assert adasg.recovery == adadfq.recovery
    assert [type(term) for term in adasg.images.terms] == [
        type(term) for term in adadfq.images.terms
    ]
    band, balance, _ = adasg.images.terms
    assert (band.lower, band.upper, balance.disagree, balance.agree) == (0.3, 0.8, 0.1, 0.1)


def test_every_method_and_add_on_says_what_is_confirmed_and_what_is_ours():
    for part in (*METHODS.values(), *ADD_ONS.values()):
        assert part.summary
        assert part.paper.confirmed
        assert part.paper.ours


def test_low_correlation_labels_are_soft_balanced_and_less_alike_than_random_ones():
    table = low_correlation_table(10, 0.6, 4, 8)
    careless = low_correlation_table(10, 0.6, 4, 1)
    torch.testing.assert_close(table.sum(1), torch.ones(40))
    assert table.argmax(1).bincount().tolist() == [4] * 10
    assert table.amax(1).min() >= 0.6
    assert _likeness(table) < _likeness(careless)


def _likeness(table):
    unit = torch.nn.functional.normalize(table)
    return (unit @ unit.T).fill_diagonal_(0).sum().item()


def test_pairs_share_labels():
    labels = OneHot(copies=2).sample(7, 10, torch.Generator().manual_seed(0))
    assert len(labels) == 7
    assert torch.equal(labels[0:6:2], labels[1:6:2])
