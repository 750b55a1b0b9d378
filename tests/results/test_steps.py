"""The description of the phases of a run."""

from dreamquant.results.steps import steps_in_brief, steps_taken


def record(*phases):
    return {
        "phases": [{"kind": kind, "precision": "32", "iterations": count} for kind, count in phases]
    }


def test_a_run_of_few_phases_is_told_whole_on_a_terminal_too():
    manifest = record(("generator warms up", 2), ("student learns", 4))
    told = "generator warms up, 2 steps in float32; student learns, 4 steps in float32"
    assert steps_taken(manifest) == steps_in_brief(manifest) == told


def test_a_run_of_many_phases_is_told_by_its_stages():
    stage = [("drawing images", 1), ("rounding", 7), ("measuring agreement", 3)]
    manifest = record(("stage: quick", 1), *stage, ("stage: slow", 1), *stage)
    assert steps_in_brief(manifest) == "quick; slow: 24 steps in all; manifest.json lists them"
    assert steps_taken(manifest).count(";") == 7


def test_a_run_of_many_phases_without_stages_is_told_by_their_number():
    manifest = record(*((f"kind {number}", 2) for number in range(6)))
    assert steps_in_brief(manifest) == "6 phases: 12 steps in all; manifest.json lists them"
