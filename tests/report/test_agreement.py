"""Agreement after each stage, over time."""

from dreamquant.report.agreement import stage_chart


def phase(seconds, found=None):
    return {"name": "p", "seconds": seconds, **({} if found is None else {"found": found})}


def found(stage, agreement, *, kept):
    return {"stage": stage, "agreement": agreement, "of": 256, "kept": kept}


def test_each_stage_has_a_mark_at_its_seconds_and_the_kept_ones_are_large():
    chart = stage_chart(
        [
            phase(3),
            phase(1, found("rounding", 60.0, kept=True)),
            phase(10, {"input_range": 64.0, "largest_deviation": 16.0}),
            phase(2, found("least squares", 90.0, kept=True)),
            phase(30, found("reconstruction", 85.0, kept=False)),
        ]
    )
    assert chart.count("<circle") == 3
    assert chart.count('r="7"') == 2
    assert "least squares\n16 s\n90.0 %" in chart


def test_a_run_without_stages_has_no_chart():
    assert stage_chart([phase(3), phase(4)]) is None
