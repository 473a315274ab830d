"""Numbers of the study of kept epochs, `study_kept_epoch.py`."""

from __future__ import annotations

from typing import Any

from doc_blocks.common import BENCHMARKS, block, script, sentences

LINES = BENCHMARKS / "kept_epoch.jsonl"
N_RUNS = 32  # two experiments, eight seeds, two presets


def _lines() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = script("study_kept_epoch").read_lines(LINES)
    return found


@block
def kept_epoch_rules() -> str:
    """Rules and averages in the same trainings."""
    lines = _lines()
    counts = {name: sum(line["data"] == name for line in lines) for name in ("few", "all", "real")}
    known = ", ".join(f"{n} with `{name}`" for name, n in counts.items() if n)
    table: str = script("study_kept_epoch").rules_table(lines)
    return (
        sentences(f"""
    Errors beside those of the same training's `best_energy` epoch without an average: geometric
    mean of the ratios of all errors, RMSE and MAE, of both levels' energies and of forces, with
    the 95 % interval over the trainings ({known}; each has another split, weight or coupling).
    """)
        + f"\n\n{table}"
    )


@block
def kept_epoch_weights() -> str:
    """Force weights and coupling."""
    table: str = script("study_kept_epoch").weights_table(_lines(), "last")
    return table


@block
def kept_epoch_cost() -> str:
    """What the comparison that was not run would take."""
    lines = [line for line in _lines() if line["data"] == "real"]
    epochs = script("study_kept_epoch").epochs_of_preset()
    seconds = sum(line["cpu_s"] / line["max_epochs"] for line in lines) / len(lines) * epochs
    return sentences(f"""
    A run of {epochs} epochs takes {seconds:.0f} s of one core, measured in the study ({len(lines)}
    trainings of MF-DZ/EF-TZ/E, with its looks at the validation data); {N_RUNS} runs take
    {N_RUNS * seconds / 60:.0f} minutes of one core.
    """)
