"""How often a network is right, and how often it agrees with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dreamquant.evaluation.classes import Classification
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.evaluation import Evaluation
from dreamquant.evaluation.intervals import wilson
from dreamquant.evaluation.outputs import evaluate_outputs

NO_CLASS = -1  # predicted where the logits hold a NaN; equals no label


def evaluate(
    model: nn.Module,
    images: EvaluationSet,
    *,
    teacher: nn.Module | None = None,
    batch: int = 100,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Accuracy of ``model`` where ``images`` are labelled, and agreement where a teacher is given.

    Each image is read once, however many networks look at it. A row of logits with a NaN counts
    as wrong and as disagreeing.

    Args:
        model: gives logits (B, C); lies on ``device``. Its training flags are restored.
        images: what to evaluate on.
        teacher: the network to agree with; lies on ``device`` too.
        batch: images per forward; of a network that is no classifier they are 8.
        device: where the images are sent.
        on_batch: called after each batch with its number of images.

    Raises:
        DataError: an image cannot be read, or ``batch`` is below 1.
    """
    found, _ = evaluate_both(model, teacher, images, batch=batch, device=device, on_batch=on_batch)
    return found


def evaluate_both(
    model: nn.Module,
    teacher: nn.Module | None,
    images: EvaluationSet,
    *,
    batch: int = 100,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
    on_answers: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Evaluation, Evaluation]:
    """What :func:`evaluate` finds for ``model``, and for ``teacher`` in the same pass.

    Without a teacher the second holds no more than the number of images. With one, ``on_answers``
    is called after each batch with the classes (B,) that either predicts; networks that are no
    classifiers have none. Args and errors as there.
    """
    with _evaluating(model), _evaluating(teacher), torch.inference_mode():
        if isinstance(images.task, Classification):
            return _evaluate_classes(model, teacher, images, batch, device, on_batch, on_answers)
        return evaluate_outputs(model, teacher, images, device=device, on_batch=on_batch)


def _evaluate_classes(
    model: nn.Module,
    teacher: nn.Module | None,
    images: EvaluationSet,
    batch: int,
    device: torch.device | str,
    on_batch: Callable[[int], None] | None,
    on_answers: Callable[[Tensor, Tensor], None] | None,
) -> tuple[Evaluation, Evaluation]:
    hits = torch.zeros(3, 2, dtype=torch.int64, device=device)  # top-1, top-5, agreement
    seen = 0
    for chunk in images.batches(batch):
        pixels = chunk.to(device)
        best = [_best_classes(net(pixels)) for net in (model, teacher) if net is not None]
        if images.labels is not None:
            labels = images.labels[seen : seen + len(chunk), None].to(device)
            for i, classes in enumerate(best):
                hits[0, i] += (classes[:, :1] == labels).sum()
                hits[1, i] += (classes == labels).sum()
        if teacher is not None:
            ours, wanted = (classes[:, 0] for classes in best)
            hits[2, 0] += ((ours == wanted) & (wanted != NO_CLASS)).sum()
            if on_answers is not None:
                on_answers(ours, wanted)
        seen += len(chunk)
        if on_batch is not None:
            on_batch(len(chunk))
    (top1, wanted1), (top5, wanted5), (agreed, _) = hits.tolist()
    labelled, taught = images.labels is not None, teacher is not None
    return (
        _evaluation(seen, (top1, top5) if labelled else None, agreed if taught else None),
        _evaluation(seen, (wanted1, wanted5) if labelled and taught else None, None),
    )


def _evaluation(n: int, right: tuple[int, int] | None, agreed: int | None) -> Evaluation:
    main = agreed if right is None else right[0]
    return Evaluation(
        top1=None if right is None else 100 * right[0] / n,
        top5=None if right is None else 100 * right[1] / n,
        n=n,
        ci95=None if main is None else wilson(main, n),
        agreement=None if agreed is None else 100 * agreed / n,
    )


def _best_classes(logits: Tensor) -> Tensor:
    """The five best classes of each row, best first; ``NO_CLASS`` for rows with a NaN."""
    # Stable, unlike topk: of equal logits the lowest class wins, on every device.
    best = logits.sort(dim=1, descending=True, stable=True).indices[:, :5]
    return best.masked_fill(logits.isnan().any(dim=1, keepdim=True), NO_CLASS)


@contextmanager
def _evaluating(model: nn.Module | None) -> Iterator[None]:
    """``model`` in evaluation mode; afterwards every module is as it was."""
    if model is None:
        yield
        return
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
