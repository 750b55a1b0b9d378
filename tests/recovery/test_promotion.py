"""Images after one step that increases the student's loss."""

import torch

from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.promotion import Promotion
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.statistics import BatchNormStatistics
from stored_runs import advance, images_of, method_of, run_of, small_network, step_on

TERM = ImageDistillation(temperature=4)


def test_each_pixel_goes_up_the_loss_by_the_step():
    teacher, student = small_network(), small_network(seed=1)
    images = images_of(3).requires_grad_()
    step = step_on(TERM, images, teacher=teacher, student=student)
    loss = TERM(step)
    promoted = Promotion(step=0.01)(_Whole(step), loss).images
    moved = (promoted - images).detach()
    assert torch.allclose(moved.abs(), torch.full_like(moved, 0.01), atol=1e-6)
    harder = TERM(step_on(TERM, promoted, teacher=teacher, student=student))
    assert harder > loss
    assert not promoted.requires_grad


class _Whole:
    """A step and its batch, as views get it."""

    def __init__(self, step):
        self.images, self.targets, self.latent = step.images, step.targets, step.latent
        self.batch = step.batch


def test_a_student_learns_from_promoted_images_of_a_pool():
    source = Pixels([BatchNormStatistics()], size=8, batch=8, steps=2)

    def learned(*views):
        train = Train([TERM], iterations=3, batch=4, lr=1e-2, views=views)
        run, images = run_of(method_of(source, Calibrate(count=8, batch=8), train))
        losses = advance(run)
        assert not images.images.requires_grad
        return run.bench.student, losses

    plain, one = learned()
    promoted, two = learned(Promotion(step=0.05))
    still, three = learned(Promotion(step=0.0))
    assert set(one[-1]) == {"student/ImageDistillation"}
    assert set(two[-1]) == {"student/ImageDistillation", "promotion/ImageDistillation"}
    assert two[-3]["promotion/ImageDistillation"] != two[-3]["student/ImageDistillation"]
    # Images that do not move are the same lesson twice.
    first = three[-3]
    assert first["promotion/ImageDistillation"] == first["student/ImageDistillation"]
    for a, b in zip(plain.parameters(), still.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    pairs = zip(plain.parameters(), promoted.parameters(), strict=True)
    assert any(not torch.allclose(a, b, atol=1e-5) for a, b in pairs)
