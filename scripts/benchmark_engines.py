"""Steps of dynamics per second in ASE, LAMMPS, OpenMM, i-PI and TorchSim.

    python scripts/benchmark_engines.py
    python3.13 scripts/benchmark_engines.py --engine TorchSim    # into the same file

One member of the shipped model, float64, one thread: ethanol (9 atoms) in open space, a periodic
box of 192 atoms of water, and 64 molecules of ethanol in one batch of TorchSim. Steps at constant
energy; seconds by the clock, without what an engine does to start. Rows of other engines that the
file has stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import torch
import typer
from ase import Atoms, units
from ase.build import molecule
from ase.io import write as write_structures
from ase.md.verlet import VelocityVerlet
from benchmarking import RESULTS, Case, OutOption, quiet, start, water_box, write

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.potentials.potential import Potential

LEVEL, TIMESTEP = "CC", 0.01  # fs; short: the model does not know the box
ENGINES_PAGE = Path(__file__).parent.parent / "docs" / "engines.md"
N_TOGETHER = 64
ELEMENTS = ["H", "C", "O"]
PACKAGES = {
    "ASE": "ase",
    "LAMMPS": "lammps",
    "OpenMM": "openmm",
    "i-PI": "ipi",
    "TorchSim": "torch-sim-atomistic",
}
Run = Callable[[int], None]  # a number of steps


def systems() -> dict[str, list[Atoms]]:
    """What moves, by its name."""
    ethanol = molecule("CH3CH2OH")
    return {"molecule": [ethanol], "water": [water_box(192)], "batch": [ethanol] * N_TOGETHER}


def in_ase(atoms: Atoms, calculator: MultiFidelityCalculator) -> Run:
    """Velocity Verlet of ASE."""
    atoms.calc = calculator
    return VelocityVerlet(atoms, timestep=TIMESTEP * units.fs).run


def in_lammps(atoms: Atoms, calculator: MultiFidelityCalculator) -> Run:
    """As the first recipe of docs/engines.md."""
    from hippynn_mf.potentials.lammps import LammpsForces, start_lammps

    boxed = atoms.copy()
    if not atoms.pbc.any():
        boxed.center(vacuum=8)
    write_structures("first.data", boxed, format="lammps-data", specorder=ELEMENTS, masses=True)
    lmp = start_lammps("-log", "none", "-screen", "none", "-nocite")
    boundary = "p p p" if atoms.pbc.all() else "f f f"
    commands = [
        "units metal",
        "atom_modify map yes",
        f"boundary {boundary}",
        "read_data first.data",
    ]
    commands += ["pair_style zero 2.0", "pair_coeff * *", "fix move all nve"]
    lmp.commands_list([*commands, f"timestep {TIMESTEP * 1e-3}"])
    forces = LammpsForces(calculator, ELEMENTS)
    forces.attach(lmp)
    return lambda n_steps: forces.command(f"run {n_steps} post no")


def in_openmm(atoms: Atoms, calculator: MultiFidelityCalculator) -> Run:
    """As the recipe of docs/engines.md."""
    from openmm import Platform, VerletIntegrator, app, unit
    from openmmml import MLPotential

    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors(atoms.cell.array * unit.angstrom)
    system = MLPotential("ase").createSystem(topology, calculator=calculator)
    integrator = VerletIntegrator(TIMESTEP * unit.femtosecond)
    platform = Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions(atoms.positions * unit.angstrom)
    run: Run = simulation.step
    return run


def in_ipi(atoms: Atoms, calculator: MultiFidelityCalculator) -> Run:
    """The driver and the settings of docs/engines.md with one bead, in this process."""
    from ipi.scripting import InteractiveSimulation

    boxed = atoms.copy()
    if not atoms.pbc.any():
        boxed.center(vacuum=8)
        boxed.pbc = True
    write_structures("methanol.xyz", boxed, format="extxyz", write_results=False)
    calculator.potential.save(Path("member.safetensors"))
    page = ENGINES_PAGE.read_text(encoding="utf-8")
    (driver,) = re.findall(r"```python\n([^`]*ASEDriver[^`]*)```", page)
    Path("driver.py").write_text(driver.replace('"mini-ani1x"', '"member.safetensors"'))
    (settings,) = re.findall(r"```xml\n(.*?)```", page, flags=re.DOTALL)
    root = ElementTree.fromstring(settings)
    root.set("verbosity", "quiet")
    for path, tag in (("output", "trajectory"), ("output", "properties")):
        root.find(path).remove(root.find(f"{path}/{tag}"))  # type: ignore[union-attr, arg-type]
    root.find("system/initialize").set("nbeads", "1")  # type: ignore[union-attr]
    root.find("system/motion/dynamics/timestep").text = str(TIMESTEP)  # type: ignore[union-attr]
    run: Run = InteractiveSimulation(ElementTree.tostring(root, encoding="unicode")).run
    return run


def in_torch_sim(structures: Sequence[Atoms], potential: Potential) -> Run:
    """Constant energy of TorchSim, step by step."""
    import torch_sim as ts

    from hippynn_mf.potentials.torch_sim import MultiFidelityModel

    model = MultiFidelityModel(potential, LEVEL)
    metal = ts.units.MetalUnits
    state = ts.nve_init(model.state_of(structures), model, kT=100 * float(metal.temperature))
    moving = [state]

    def run(n_steps: int) -> None:
        for _ in range(n_steps):
            moving[0] = ts.nve_step(moving[0], model, dt=TIMESTEP * 1e-3 * float(metal.time))

    return run


ENGINES = {"ASE": in_ase, "LAMMPS": in_lammps, "OpenMM": in_openmm, "i-PI": in_ipi}


def steps_per_second(run: Run, n_steps: int, repeats: int) -> float:
    """The median of several runs, after a short one."""
    run(2)
    rates = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run(n_steps)
        rates.append(n_steps / (time.perf_counter() - begin))
    return statistics.median(rates)


def measure(engine: str, n_steps: int, repeats: int) -> list[dict[str, Any]]:
    """The rows of an engine."""
    potential = Potential.load("mini-ani1x")
    member = potential.member(potential.card.members[0].seed)
    rows = []
    for name, structures in systems().items():
        if name == "batch" and engine != "TorchSim":
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
            Case(threads=1).setting(),
            quiet(),
        ):
            if engine == "TorchSim":
                run = in_torch_sim(structures, member)
            else:
                calculator = MultiFidelityCalculator(member, LEVEL)
                run = ENGINES[engine](structures[0].copy(), calculator)
            n_atoms = sum(map(len, structures))
            rate = steps_per_second(run, max(2, n_steps * 9 // n_atoms), repeats)
        rows.append(
            {
                "engine": engine,
                "version": version(PACKAGES[engine]),
                "torch": torch.__version__,
                "system": name,
                "n_atoms": n_atoms,
                "steps_per_s": rate,
                "threads": 1,
                # Of all processes on the machine; this one alone makes 1.
                "load_average": os.getloadavg()[0],
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: steps per second of all atoms together."""
    found = {(row["engine"], row["system"]): row for row in rows}
    n_atoms = {row["system"]: row["n_atoms"] for row in rows}
    names = {"molecule": "a molecule", "water": "a box of water"}
    names["batch"] = f"{N_TOGETHER} molecules at once"
    heads = [f"{names[system]}, {n} atoms" for system, n in n_atoms.items()]
    lines = ["| steps per second | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for engine in PACKAGES:
        cells = [found.get((engine, system)) for system in n_atoms]
        if any(cells):
            release = next(cell["version"] for cell in cells if cell)
            rates = [f"{cell['steps_per_s']:.0f}" if cell else "" for cell in cells]
            lines.append(f"| {engine} {release} | {' | '.join(rates)} |")
    return "\n".join(lines)


def main(
    engine: Annotated[list[str] | None, typer.Option(help="Of the table; all.")] = None,
    n_steps: Annotated[
        int, typer.Option(min=2, help="Steps of a timed run of the molecule, fewer of more atoms.")
    ] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 5,
    out: OutOption = RESULTS,
) -> None:
    """Time the engines; write `engines.json` and print it as a Markdown table."""
    chosen = engine or list(PACKAGES)
    for name in chosen:
        if name not in PACKAGES:
            raise UserError(unknown_name_message("engine", name, PACKAGES))
    file = out / "engines.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    rows = [row for row in rows if row["engine"] not in chosen]
    for name in chosen:
        rows += measure(name, n_steps, repeats)
    rows.sort(key=lambda row: list(PACKAGES).index(row["engine"]))
    write("engines", rows, torch.device("cpu"), out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
