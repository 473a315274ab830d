"""The start of a process of ours: what it imports, and its threads.

For processes that this package starts itself, the command line and the workers of a campaign: what
is put off here is put off for everything else in the process, too. A script imports hippynn as it
likes.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Packages that importing hippynn 0.1.3 loads where they are installed, and does without where they
# are not: its plots and its Lightning trainer. Who needs them imports them afterwards.
OPTIONAL = ("matplotlib", "pytorch_lightning")


def match_numba_threads(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Give numba as many threads as OMP_NUM_THREADS allows, where only that is set.

    Before numba is imported: it would start one for every core otherwise, which spin on a busy
    machine. Afterwards it is too late: numba reads the variable again and refuses another value.
    """
    if (asked := asked_threads(environment)) and "numba" not in sys.modules:
        environment.setdefault("NUMBA_NUM_THREADS", str(asked))


def share_cores(n_workers: int, environment: dict[str, str] | os._Environ[str] = os.environ) -> int:
    """Threads of each of `n_workers` on this machine: OMP_NUM_THREADS, or its share of the cores.

    Where somebody limits threads, other processes want the cores: more would spin.
    """
    return asked_threads(environment) or max(1, available_cores() // n_workers)


def asked_threads(environment: dict[str, str] | os._Environ[str] = os.environ) -> int | None:
    """OMP_NUM_THREADS, its first number where there is one for each level of nesting; or None."""
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def available_cores() -> int:
    """Cores that this process may use, which a cluster may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def import_hippynn() -> None:
    """Import hippynn without what a run does not use, which is more than half of what it loads.

    Afterwards all of it can be used: plots and the Lightning trainer are there for who imports
    them, and what `torch.compile` makes is compiled when it is first called.
    """
    if "hippynn" in sys.modules:
        return
    with without_collections():
        import torch

        _without_compiler(torch)
        with _absent(OPTIONAL), _compiled_later(torch):
            import hippynn
        _there_when_asked(hippynn)


@contextmanager
def without_collections() -> Iterator[None]:
    """Inside, for imports, no garbage is looked for; afterwards not among what there is then.

    An import makes hundreds of thousands of objects that stay, among which it would be looked for
    again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _there_when_asked(hippynn: Any) -> None:
    """Let hippynn's own training draw, and names of its packages be there, as where all is loaded.

    A package that is really absent is so for them, too.
    """
    from hippynn.experiment import metric_tracker

    without = metric_tracker.plot_all_over_time

    def draw(*arguments: Any) -> Any:
        try:
            from hippynn.plotting import plot_all_over_time
        except ImportError:
            return without(*arguments)
        return plot_all_over_time(*arguments)

    def of_package(name: str) -> Any:
        if name == "plotting":
            with suppress(ImportError):
                import hippynn.plotting as plotting

                return plotting
        raise AttributeError(f"module 'hippynn' has no attribute {name!r}")

    def of_experiment(name: str) -> Any:
        if name == "HippynnLightningModule":
            with suppress(ImportError):
                from hippynn.experiment.lightning_trainer import HippynnLightningModule

                return HippynnLightningModule
        raise AttributeError(f"module 'hippynn.experiment' has no attribute {name!r}")

    if "hippynn.plotting" not in sys.modules:
        metric_tracker.plot_all_over_time = draw
        hippynn.__getattr__ = of_package
    hippynn.experiment.__getattr__ = of_experiment


@contextmanager
def _absent(names: tuple[str, ...]) -> Iterator[None]:
    """Inside, packages that are not loaded cannot be imported."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _compiled_later(torch: Any) -> Iterator[None]:
    """Inside, `torch.compile` loads no compiler until what it returns is called."""
    compile_now = torch.compile

    def compile_later(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        compiled: list[Callable[..., Any]] = []

        def call(*arguments: Any, **keywords: Any) -> Any:
            if not compiled:
                compiled.append(compile_now(function, **options))
            return compiled[0](*arguments, **keywords)

        return call

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


def _without_compiler(torch: Any) -> None:
    """Let optimizers be made without loading the compiler, only to be left out by it.

    A step, not a model, would have to be compiled to notice.
    """
    optimizer = torch.optim.Optimizer
    for method in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        plain = getattr(getattr(optimizer, method), "__wrapped__", None)
        if plain is not None:  # torch looks here for what it made at the first call
            plain.__dict__.setdefault("__dynamo_disable", plain)
