"""What the benchmark scripts share: cases, systems, models in pairs, and timing in turn."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numba
import numpy as np
import torch
import typer
from ase import Atoms
from ase.build import molecule
from hippynn import custom_kernels
from hippynn import settings as hippynn_settings
from hippynn.graphs import Predictor
from hippynn.graphs.nodes.inputs import PositionsNode, SpeciesNode
from hippynn.interfaces.ase_interface import HippynnCalculator
from tqdm import tqdm

from hippynn_mf.errors import UserError
from hippynn_mf.files import replace_when_complete
from hippynn_mf.hyperparameters import Hyperparameters, get_hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.model.heads import Heads, build_heads
from hippynn_mf.model.model import Model
from hippynn_mf.model.predicting import build_predictor
from hippynn_mf.network.device import choose_device
from hippynn_mf.network.final_gradients import FastCalculator
from hippynn_mf.network.hipnn import NETWORKS

DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:n.")]
FullOption = Annotated[bool, typer.Option("--full", help="Every combination: hours.")]
OutOption = Annotated[Path, typer.Option(help="Folder of the results.")]
RESULTS = Path(__file__).parent / "benchmarks"
ATOMS_PER_BLOCK = 250
WATER_DENSITY = 0.1003  # atoms per Å³ at 1 g/cm³


@dataclass(frozen=True)
class Case:
    """One setting: the paper's network unless said otherwise, on one thread."""

    system: str = "small"
    labels: str = "DZ/EF + CC/E"
    n_features: int = 120
    tensor_order: int = 2
    threads: int = 1
    kernels: str = "numba"  # of stock hippynn
    preset: str = "paper"

    def hyperparameters(self) -> Hyperparameters:
        """The preset's, with the case's sizes."""
        sizes = {"n_features": self.n_features, "tensor_order": self.tensor_order}
        return get_hyperparameters(self.preset, sizes)

    @contextlib.contextmanager
    def setting(self) -> Iterator[None]:
        """Threads and kernels of the case."""
        if self.threads > numba.config.NUMBA_NUM_THREADS:
            raise UserError(
                f"numba has {numba.config.NUMBA_NUM_THREADS} threads here, the case asks for "
                f"{self.threads}. Unset NUMBA_NUM_THREADS, or use a machine with more cores."
            )
        before = torch.get_num_threads(), numba.get_num_threads()
        active = custom_kernels.CUSTOM_KERNELS_ACTIVE
        torch.set_num_threads(self.threads)
        numba.set_num_threads(self.threads)
        custom_kernels.set_custom_kernels(self.kernels)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            numba.set_num_threads(before[1])
            custom_kernels.set_custom_kernels(active)


# On a GPU hippynn chooses its kernels, and threads do not matter.
GPU_FACTORS = {"threads": [1], "kernels": ["auto"]}


def cases(factors: Mapping[str, Sequence[Any]], *, full: bool) -> list[tuple[str, Case]]:
    """The base case, then every factor varied on its own; with `full`, every combination.

    A factor without the value of `Case` has its first value in the base case.
    """
    base = Case()
    changed = {k: v[0] for k, v in factors.items() if getattr(base, k) not in v}
    base = replace(base, **changed)
    if full:
        grid = itertools.product(*factors.values())
        return [("grid", Case(**dict(zip(factors, values, strict=True)))) for values in grid]
    varied = [
        (factor, replace(base, **{factor: value}))
        for factor, values in factors.items()
        for value in values
        if value != getattr(base, factor)
    ]
    return [("base", base), *varied]


def label_set(name: str) -> dict[str, str]:
    """Labels of a name such as `DZ/EF + CC/E`."""
    return dict(part.split("/") for part in name.split(" + "))


def random_molecules(n: int, sizes: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Species and positions in Å of random trees of bonded atoms, padded with zeros.

    Half of the atoms are hydrogen; bonds are 1.0 to 1.5 Å, other distances at least 1 Å.
    """
    rng = np.random.default_rng(seed)
    species, positions = np.zeros((n, max(sizes)), np.int64), np.zeros((n, max(sizes), 3))
    for k in range(n):
        n_atoms = sizes[k % len(sizes)]
        places = [np.zeros(3)]
        while len(places) < n_atoms:
            step = rng.normal(size=3)
            step *= rng.uniform(1.0, 1.5) / np.linalg.norm(step)
            place = places[rng.integers(len(places))] + step
            if min(np.linalg.norm(place - other) for other in places) >= 1.0:
                places.append(place)
        positions[k, :n_atoms] = places
        species[k, :n_atoms] = rng.choice([1, 1, 1, 6, 7, 8], size=n_atoms)
    return species, positions


# Sizes of batches of molecules: nine atoms, and the spread of ANI-1x about its mean of 14.
MOLECULES: Mapping[str, tuple[int, Sequence[int]]] = {
    "small": (64, [9]),
    "ani1x": (64, [6, 9, 11, 12, 13, 14, 14, 15, 16, 18, 20, 20]),
}


def water_box(n_atoms: int, seed: int = 0) -> Atoms:
    """Periodic water at its density: molecules at random orientations on a lattice."""
    rng = np.random.default_rng(seed)
    n_molecules = n_atoms // 3
    per_side = math.ceil(n_molecules ** (1 / 3))
    side = (n_atoms / WATER_DENSITY) ** (1 / 3)
    lattice = itertools.product(range(per_side), repeat=3)
    water, box = molecule("H2O"), Atoms(cell=[side] * 3, pbc=True)
    places = rng.permutation(np.array(list(lattice)))[:n_molecules] * side / per_side
    for place in places[np.lexsort(places.T[::-1])]:
        turned = water.copy()
        turned.euler_rotate(*rng.uniform(0, 360, 3))
        turned.translate(place + rng.normal(scale=0.1, size=3))
        box += turned
    return box


@dataclass(frozen=True)
class Network:
    """Inputs and heads of one model, stock or fast, as its users would use it."""

    inputs: list[Any]
    heads: Heads
    is_stock: bool
    atoms_per_block: int | None = None

    def predictor(self, device: torch.device) -> Predictor:
        """Predictor of energies and forces of every head with forces."""
        if not self.is_stock:
            return build_predictor(Model(*self.inputs, self.heads), device)
        heads = [head for head in self.heads.values() if head.forces is not None]
        nodes = [node for head in heads for node in (head.energy.main_output, head.forces)]
        return Predictor(self.inputs, nodes, model_device=device)

    def calculator(self) -> HippynnCalculator:
        """ASE calculator of the first head."""
        energy = next(iter(self.heads.values())).energy
        if self.is_stock:
            return HippynnCalculator(energy)
        return FastCalculator(energy, atoms_per_block=self.atoms_per_block)


# Whose network: hippynn's, and ours as its users have it unless they ask for something else.
INTERACTIONS = MappingProxyType({"stock": "stock", "ours": "auto"})


def network_pair(
    case: Case, *, seed: int = 0, interactions: Mapping[str, str] = INTERACTIONS
) -> dict[str, Network]:
    """The same model over networks of several `interactions`, by their names."""
    hyperparameters, labels = case.hyperparameters(), parse_labels(label_set(case.labels))
    models = {}
    for name, interaction in interactions.items():
        torch.manual_seed(seed)
        inputs = [SpeciesNode(db_name="species"), PositionsNode(db_name="positions")]
        network_class = NETWORKS[interaction][case.tensor_order]
        arguments = hyperparameters.network_arguments()
        network = network_class("network", tuple(inputs), module_kwargs=arguments)
        models[name] = Network(
            inputs, build_heads(network, labels, coupling="independent"), interaction == "stock"
        )
    return models


def compare(
    timed: Mapping[str, Callable[[], float]],
    repeats: int,
    warm_up: int = 2,
    reference: str = "stock",
) -> dict[str, Any]:
    """Median ms of functions called in turn, and how much faster each is than the `reference`.

    Ratios are to the reference's call of the same round and of the next, so that a drift of the
    machine cancels.
    """
    for _ in range(warm_up):
        for function in timed.values():
            function()
    rounds = [{name: function() for name, function in timed.items()} for _ in range(repeats)]
    result: dict[str, Any] = {}
    for name in timed:
        result[f"{name}_ms"] = statistics.median(each[name] for each in rounds)
        if name == reference:
            continue
        ratios = [each[reference] / each[name] for each in rounds]
        ratios += [after[reference] / each[name] for each, after in itertools.pairwise(rounds)]
        result[f"{name}_speedup"] = statistics.median(ratios)
        result[f"{name}_speedup_error"] = _error_of_median(ratios, repeats)
    return result


def _error_of_median(values: Sequence[float], n: int) -> float:
    lower, _, upper = statistics.quantiles(values, n=4)
    return 1.2533 * (upper - lower) / 1.349 / math.sqrt(n)


def measure_cases(
    name: str,
    factors: Mapping[str, Sequence[Any]],
    measure: Callable[[Case, torch.device], Mapping[str, Any]],
    *,
    device: str,
    full: bool,
    out: Path,
) -> list[dict[str, Any]]:
    """Measure every case of the factors, write `<name>.json`, return its rows."""
    target = choose_device(device)
    chosen = factors if target.type == "cpu" else {**factors, **GPU_FACTORS}
    rows = [
        row(factor, case, measure(case, target))
        for factor, case in tqdm(cases(chosen, full=full), unit="case")
    ]
    write(name, rows, target, out)
    return rows


def row(factor: str, case: Case, measured: Mapping[str, Any]) -> dict[str, Any]:
    """A row of results: what varied, the whole case, what was measured."""
    return {"factor": factor, **asdict(case), **measured}


def write(name: str, rows: Sequence[Mapping[str, Any]], device: torch.device, out: Path) -> None:
    """Write rows with the facts of the machine as JSON."""
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "versions": {p: version(p) for p in ("hippynn", "torch", "numba", "numpy")},
    }
    out.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(out / f"{name}.json") as path:
        path.write_text(json.dumps(facts | {"rows": list(rows)}, indent=1) + "\n")


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "CPU"


def timer(function: Callable[[], Any], device: torch.device) -> Callable[[], float]:
    """A function that calls another and returns its ms: of the processor, where one thread works.

    Other work on the machine disturbs these less than the clock's.
    """
    is_one = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if is_one else time.perf_counter

    def timed() -> float:
        synchronize(device)
        start = clock()
        function()
        synchronize(device)
        return 1e3 * (clock() - start)

    return timed


def start(main: Callable[..., None]) -> None:
    """Run a script; wrong input is one message and exit code 2, as of `hippynn-mf`."""
    try:
        typer.run(main)
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Print on standard error, and do not warn of near atoms: random structures have some."""
    hippynn_settings.WARN_LOW_DISTANCES = False
    return contextlib.redirect_stdout(sys.stderr)
