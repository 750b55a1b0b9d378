"""Evaluation of networks that are not classifiers: scores by labels, agreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.evaluation import Evaluation
from dreamquant.evaluation.majority import constant_agreement
from dreamquant.evaluation.task import ScoredTask

_BATCH = 8  # small, because maps of detectors and segmenters are large


def evaluate_outputs(
    model: nn.Module,
    teacher: nn.Module | None,
    images: EvaluationSet,
    *,
    device: torch.device | str,
    on_batch: Callable[[int], None] | None,
) -> tuple[Evaluation, Evaluation]:
    """The figures of a network and of its teacher; each image is read once.

    Both are in eval mode; no gradient is computed. Args and errors as for
    :func:`dreamquant.evaluation.metrics.evaluate_both`.
    """
    task, seen = images.task, 0
    assert isinstance(task, ScoredTask)  # classifiers are evaluated in another function
    scored: tuple[list[Any], list[Any]] = [], []
    agreed: list[Tensor] = []
    decided: list[Tensor] = []
    for chunk in images.batches(_BATCH):
        pixels = chunk.to(device)
        given = [net(pixels) for net in (model, teacher) if net is not None]
        if images.truth is not None:
            truth = images.truth[seen : seen + len(chunk)]
            for each, output in zip(scored, given, strict=False):
                each += task.score(output, truth)
        if teacher is not None:
            agreed.append(task.agree(*given))
            if (counts := task.decisions(given[1])) is not None:
                decided.append(counts)
        seen += len(chunk)
        if on_batch is not None:
            on_batch(len(chunk))
    ours, wanted = (_scores(task, each) for each in scored)
    constant = constant_agreement(torch.stack(decided).sum(0)) if decided else None
    mine = replace(_evaluation(seen, task, ours, agreed), constant=constant)
    return mine, _evaluation(seen, task, wanted, [])


Scored = tuple[dict[str, float], tuple[float, float] | None] | None


def _scores(task: ScoredTask, images: list[Any]) -> Scored:
    return (task.scores(images), task.interval(images)) if images else None


def _evaluation(n: int, task: ScoredTask, scored: Scored, agreed: list[Tensor]) -> Evaluation:
    agreement = task.agreement(torch.cat(agreed)) if agreed else None
    agreement_ci95 = None if agreement is None else agreement.ci95
    return Evaluation(
        top1=None,
        top5=None,
        n=n,
        ci95=agreement_ci95 if scored is None else scored[1],
        agreement=None if agreement is None else agreement.percent,
        scores={} if scored is None else scored[0],
        outputs={} if agreement is None else agreement.outputs,
        agreement_ci95=agreement_ci95,
    )
