"""Numbers of benchmarks, of the shipped model and of the embedded data."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import h5py

from doc_blocks.common import BENCHMARKS, RESULTS, block, rows, script, sentences


@block
def minima() -> str:
    """Minima and vibrations of the shipped model: a few seconds."""
    from hippynn_mf.potentials.potential import Potential

    table: str = script("compare_minima").table(Potential.load("mini-ani1x"))
    return table


@block
def speed() -> str:
    """Steps, dynamics and memory beside hippynn's."""
    benchmarks = script("benchmark_all")
    table: str = benchmarks.summary(benchmarks.read(BENCHMARKS))
    return table


@block
def faults() -> str:
    """What campaigns survived."""
    table: str = script("inject_faults").table(rows("faults"))
    return table


@block
def second_level() -> str:
    """What a second level with forces costs."""
    steps = {row["labels"]: row for row in rows("step") if row["factor"] in ("base", "labels")}
    one, two = steps["DZ/EF"], steps["DZ/EF + TZ/EF"]
    ratio, stock = (two[name] / one[name] for name in ("ours_ms", "stock_ms"))
    return sentences(f"""
    A training step on forces of two levels (DZ/EF + TZ/EF) takes {ratio:.2f} times that on forces
    of one (hippynn's own layers: {stock:.2f}).
    """)


@block
def step_profile() -> str:
    """Where the time of a step goes, and what products a second level adds."""
    found = rows("profile")
    table: str = script("profile_step").table(found)
    by_case = {row["case"]: row for row in found if "case" in row}
    energies, one, two = (
        by_case[f"paper, {labels}"] for labels in ("DZ/E", "DZ/EF", "DZ/EF + TZ/EF")
    )
    products = [row["multiplications"] for row in (energies, one, two)]
    text = sentences(f"""
    The products of a step on forces of two levels are {products[2] / products[1]:.2f} times those
    on forces of one, which are {products[1] / products[0]:.2f} times those on energies. Processor
    time; the machine had other work, which disturbs parts more than the whole, so that the rest may
    come out below zero.
    """)
    return f"{table}\n\n{text}"


@block
def gfn_pair() -> str:
    """Forces at a level that had energies only, after so many seconds."""
    found = rows("gfn_pair")
    table: str = script("benchmark_gfn_pair").table(found)
    (step,) = (row for row in found if row.get("kind") == "step")
    errors = [row["force_rmse"] for row in found if "seed" in row]
    text = sentences(f"""
    Mean {statistics.mean(errors):.2f}, standard deviation {statistics.stdev(errors):.2f}. A
    training step of stock hippynn on the same network and batch size takes {step["stock_ms"]:.0f}
    ms here, ours {step["ours_ms"]:.1f}.
    """)
    return f"{table}\n\n{text}"


@block
def whole_run() -> str:
    """Processor time of a whole run before and now, by its parts."""
    both = rows("run")
    base, now = both
    set_of_both = ", ".join(base["set"]) or "all 80 epochs"
    ratio = now["cpu_s"] / base["cpu_s"]
    table: str = script("benchmark_run").table(both)
    text = sentences(f"""
    Together {ratio:.2f} of the base ({set_of_both}). The other core had other work.
    """)
    return f"{table}\n\n{text}"


@block
def ensemble_cost() -> str:
    """What the members of an ensemble cost together."""
    table: str = script("benchmark_ensemble").summary(rows("ensemble"))
    return table


@block
def predict_speed() -> str:
    """From file to file beside the bare graph."""
    found = rows("predict")
    table: str = script("benchmark_predict").table(found)
    goal = [row["fraction"] for row in found if row["fraction"] >= 0.8]
    return (
        table
        + "\n\n"
        + sentences(f"""
    {len(goal)} of {len(found)} are above the goal of 0.8; what stays below are small files of
    small molecules, in which reading and writing take as long as half of the graph or longer, and
    where another process would hardly have started before they end.
    """)
    )


@block
def engine_speed() -> str:
    """Steps of dynamics per second in every engine."""
    found = rows("engines")
    table: str = script("benchmark_engines").table(found)
    loads = [row["load_average"] for row in found]
    together = {row["system"]: row for row in found if row["engine"] == "TorchSim"}
    text = sentences(f"""
    One thread, float64 (`python scripts/benchmark_engines.py`), on a machine with two cores and an
    average load of {min(loads):.0f} to {max(loads):.0f}. TorchSim makes
    {together["batch"]["steps_per_s"] * 64:.0f} steps of a molecule per second in a batch of 64.
    """)
    return f"{table}\n\n{text}"


@block
def extract_cost() -> str:
    """One level alone beside a model built with that level."""
    return sentences(f"""
    It is as fast as a model built with that level only: at most
    {max(row["ratio"] for row in rows("extract")):.3f} of its time (`python
    scripts/benchmark_extract.py`).
    """)


@block
def reading() -> str:
    """Reading files of the size of ANI-1x."""
    found = rows("reading")
    table: str = script("benchmark_reading").table(found)
    libraries = max(row["libraries_mib"] for row in found)
    return (
        table
        + "\n\n"
        + sentences(f"""
    CPU time is the processor's, of `hippynn_mf.load_database`, which works on one core: the machine
    had other work, so seconds by the clock would say more of that. Copies are found and joined,
    labels checked; both are compared with the rest of `load_splits`, which reads the file and draws
    the splits. A plain reading is that of the same arrays with h5py, which does nothing with them.
    The file was in the operating system's cache, imports are not counted, and peak memory is that
    of the whole process, of which the libraries alone take up to {libraries:.0f} MiB.
    """)
    )


@block
def spread() -> str:
    """Whether the spread of an ensemble tells its errors."""
    content = json.loads((RESULTS / "figures" / "spread-mf_dz_ef_cc_e.json").read_text())
    found = {(p["part"], p["level"], p["kind"]): p["calibration"] for p in content["panels"]}
    cc = found["heldout", "ccsd(t)_cbs", "energy"]
    forces = found["heldout", "wb97x_dz", "forces"]
    far = found["comp6", "ccsd(t)_cbs", "delta_e"]
    return sentences(f"""
    On held-out structures the spread has the size of the error of CC energies (error/spread
    {cc["ratio"]:.2f}) but hardly finds the wrong ones (Spearman {cc["spearman"]:.2f}, of DZ
    forces {forces["spearman"]:.2f}); on the larger molecules of COMP6 errors of conformer
    energies are {far["ratio"]:.2f} times the spread.
    """)


@block
def fuzz() -> str:
    """What became of wrong inputs."""
    table: str = script("fuzz_counts").table(rows("fuzz"))
    return table


# data


@block
def embedded_data() -> str:
    """How much the embedded files hold."""
    from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES, MINI_COMP6
    from hippynn_mf.data.info import describe_file

    info = describe_file(MINI_ANI1X)
    n_forces = describe_file(MINI_CC_FORCES)["n_structures"]
    molecules = list(_molecules(MINI_COMP6))
    published = script("make_synthetic_ani1x").N_CC
    return sentences(f"""
    `mini-ani1x.h5` has {info["n_structures"]:,} conformers of small molecules, of which
    {info["n_common"]:,} carry every label; those are used by default. That is
    1/{published / info["n_common"]:.0f} of the conformers with every label in ANI-1x.
    `mini-comp6.h5` holds {sum(molecules)} conformers of {len(molecules)} molecules with three or
    four heavy atoms, `mini-cc-forces.h5` {n_forces} conformers with coupled-cluster forces.
    """)


def _molecules(path: Path) -> Iterator[int]:
    """The number of conformers of every molecule of a file in the COMP6 layout."""
    with h5py.File(path) as file:
        for group in file.values():
            for molecule in group.values():
                yield len(molecule["coordinates"])


@block
def compiled_step() -> str:
    """Training steps of the compiled interaction, and products in its kernels."""
    benchmark, found = script("benchmark_compiled"), rows("compiled")
    loads = [row["load"] for row in found]
    text = sentences(f"""
    Processor time of one thread, median ± standard error of the ratio. The machine has two cores
    and was busy with other work (average load {min(loads):.0f} to {max(loads):.0f}), which makes
    both slower.
    """)
    return f"{benchmark.table(found)}\n\n{text}\n\n{benchmark.table_of_products(found)}"


@block
def traced_step() -> str:
    """Training steps of the traced interaction on a CPU."""
    benchmark, found = script("benchmark_traced"), rows("traced")
    loads = [row["load"] for row in found]
    text = sentences(f"""
    Processor time of one thread, median ± standard error of the ratio; the first step, by the
    clock, traces, compiles and compares. The machine has two cores and was busy with other work
    (average load {min(loads):.0f} to {max(loads):.0f}), which makes everything slower.
    """)
    return f"{benchmark.table(found)}\n\n{text}"


@block
def tracing_ways() -> str:
    """Two ways of tracing a step beside each other."""
    found = {row["way"]: row for row in rows("tracing")}
    cut, recorded, at_once = (found[w] for w in ("recorded, with detach", "recorded", "at once"))
    if not (cut["outputs"] < 1e-4 and cut["gradients"] > 0.1):
        raise ValueError("what is recorded with detach has right gradients now; say so")
    if not (at_once["ms"] < recorded["ms"] and at_once["first_step_s"] < recorded["first_step_s"]):
        raise ValueError("tracing at once is no longer the quicker way; say so")
    table: str = script("compare_tracing").table(list(found.values()))
    loads = [row["load"] for row in found.values()]
    text = sentences(f"""
    Without the loss and the optimizer; processor time of one thread, first steps by the clock, on
    a machine with two cores and an average load of {max(loads):.0f}.
    """)
    return f"{table}\n\n{text}"


@block
def gpu_count() -> str:
    """Operations and bytes of a step, and what GPUs would take for them at least."""
    counting = script("count_step")
    results = json.loads((BENCHMARKS / "count.json").read_text())
    fast = next(row for row in results["rows"] if row["interaction"] == "fast")
    times = [
        (counting.Gpu(**gpu), counting.shortest(fast, counting.Gpu(**gpu), is_fused=False))
        for gpu in results["gpus"]
    ]
    if any(limit != "memory" for _, (_, limit) in times):
        raise ValueError("memory is not the limit of every GPU; say what is")
    quickest, (ms, _) = min(times, key=lambda each: each[1][0])
    per_call = 1e3 * ms / fast["n_operations"]
    text = sentences(f"""
    {fast["n_structures"]} structures, {fast["n_atoms"]:,} atoms, {fast["n_pairs"]:,} directed
    pairs, labels DZ/EF + CC/E, float32 outside tensor cores. On all of these GPUs memory is the
    limit of a step whose operations run one by one. On the {quickest.name} that leaves
    {per_call:.1f} µs for each of the {fast["n_operations"]:,} calls, less than PyTorch usually
    needs to start one: calls are likely to be the limit before memory is. Both speak for
    compiling.
    """)
    return f"{counting.table(results)}\n\n{text}"
