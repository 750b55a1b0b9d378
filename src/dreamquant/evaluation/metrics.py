"""Accuracy of a network, and its agreement with the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from dreamquant import machine
from dreamquant.evaluation.classes import Classification
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.evaluation import Evaluation
from dreamquant.evaluation.intervals import wilson
from dreamquant.evaluation.majority import constant_agreement
from dreamquant.evaluation.outputs import evaluate_outputs

NO_CLASS = -1  # prediction if a logit is NaN; it equals no label


def evaluate(
    model: nn.Module,
    images: EvaluationSet,
    *,
    teacher: nn.Module | None = None,
    batch: int = 100,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Accuracy of ``model`` if ``images`` are labelled, and agreement if a teacher is given.

    Each image is read once for both networks. A row of logits with NaN counts as wrong and as
    disagreement.

    Args:
        model: network with logits (B, C), on ``device``. Its training flags are restored.
        images: images for the evaluation.
        teacher: network for the agreement, on ``device``.
        batch: number of images per forward pass; for other networks than classifiers it is 8.
        device: device of the networks; images are moved there.
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
    """The result of :func:`evaluate` for ``model`` and, in the same pass, for ``teacher``.

    Without a teacher the second result contains only the number of images. With a teacher,
    ``on_answers`` is called after each batch with the predicted classes (B,) of both; it is not
    called for networks that are not classifiers. Args and errors as for :func:`evaluate`.
    """
    machine.keep_freed_memory()
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
    decided: list[Tensor] = []
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
            decided.append(wanted[wanted != NO_CLASS].cpu())
            if on_answers is not None:
                on_answers(ours, wanted)
        seen += len(chunk)
        if on_batch is not None:
            on_batch(len(chunk))
    (top1, wanted1), (top5, wanted5), (agreed, _) = hits.tolist()
    labelled, taught = images.labels is not None, teacher is not None
    mine = _evaluation(seen, (top1, top5) if labelled else None, agreed if taught else None)
    return (
        replace(mine, constant=_constant(decided)),
        _evaluation(seen, (wanted1, wanted5) if labelled and taught else None, None),
    )


def _constant(decided: list[Tensor]) -> float | None:
    """The agreement of a constant answer with predicted classes, (B,) each."""
    classes = torch.cat(decided) if decided else torch.empty(0)
    return constant_agreement(classes.bincount()[None]) if len(classes) else None


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
    # Stable sort instead of topk: for equal logits the lowest class is first, on every device.
    best = logits.sort(dim=1, descending=True, stable=True).indices[:, :5]
    return best.masked_fill(logits.isnan().any(dim=1, keepdim=True), NO_CLASS)


@contextmanager
def _evaluating(model: nn.Module | None) -> Iterator[None]:
    """Set ``model`` to eval mode inside the block; afterwards restore the mode of every module."""
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
