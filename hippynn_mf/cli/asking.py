"""What commands ask for: a request, whose options are made of its fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippynn_mf.cli.options import parse_experiments
from hippynn_mf.cli.texts import parameter_name, read_values, split_words
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.request_fields import Flag
from hippynn_mf.starting import without_collections

if TYPE_CHECKING:
    from hippynn_mf.runs.experiment import Experiment
    from hippynn_mf.runs.settings import RunSettings

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EXPERIMENT|FILE.toml|LEVEL=FILE",
        help="Experiments, as MF-DZ/EF-CC/E; or a run file, which options override; after --train "
        "more of its files.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Asked:
    """A request, with its experiments looked up and the settings of its runs."""

    request: Request
    experiments: list[Experiment]
    settings: list[RunSettings]
    preset_reason: str  # why the runs have their preset

    @property
    def preset_line(self) -> str:
        """Which preset is used and why, what of it the paper has otherwise, and the elements."""
        from ase.data import chemical_symbols

        from hippynn_mf.labels import has_stress
        from hippynn_mf.report.recipe import recipe_text

        named = dict.fromkeys(
            recipe_text(each, stress=has_stress(each.experiment.resolved_labels))
            for each in self.settings
        )
        species = self.settings[0].hyperparameters.species[1:]
        elements = ", ".join(chemical_symbols[number] for number in species)
        preset = f"Preset {' · '.join(named)}: {self.preset_reason}. Elements {elements}."
        return f"{preset} {self.rows_line}"

    @property
    def rows_line(self) -> str:
        """Which structures are taken, and why."""
        first = self.settings[0]
        names = ", ".join(first.known.get(name).label for name in first.common_levels)
        taken = {
            "all": "all structures with any label of an experiment",
            "common": f"structures with the energies of all of {names}",
        }[first.rows]
        why = "as asked for"
        if self.request.rows is None:
            other = "common" if first.rows == "all" else "all"
            of = "data of your own" if first.rows == "all" else "these data and experiments"
            why = f"the default with {of}; --rows {other} chooses others"
        return f"Rows {first.rows}, {taken}: {why}."


def asking(defaults: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that takes an `Asked`, with an option for every field of a request.

    `defaults` stand where neither a run file nor an option says anything.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own_options = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            others = {parameter.name: values.pop(parameter.name) for parameter in own_options}
            words = values.pop("words") or []
            command(_ask(words, values, defaults), **others)

        words = inspect.Parameter(
            "words", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=WordsArgument
        )
        _give_signature(with_options, [words, *field_parameters(), *own_options])
        return with_options

    return decorate


def with_fields(*flags: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that takes some of the options of a request, as `fields`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own_options = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "fields"
        ]

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            others = {parameter.name: values.pop(parameter.name) for parameter in own_options}
            command(**others, fields=values)

        _give_signature(with_options, [*own_options, *field_parameters(flags)])
        return with_options

    return decorate


def field_parameters(only: Collection[str] = ()) -> Iterator[inspect.Parameter]:
    """A parameter for each flag of the fields of a request, with its help."""
    for field in Request.model_fields.values():
        for flag in (item for item in field.metadata if isinstance(item, Flag)):
            if only and flag.names[0] not in only:
                continue
            help_text = flag.help or str(field.description)
            if field.default and "(default:" not in help_text:
                help_text += f" (default: {field.default})"
            option = typer.Option(
                *flag.names,
                help=help_text,
                metavar=flag.metavar,
                min=flag.least,
                file_okay=flag.folder is not True,
                show_default=False,
            )
            kind: Any = list[flag.kind] if flag.many else flag.kind  # type: ignore[name-defined]
            yield inspect.Parameter(
                parameter_name(flag),
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, option],
            )


def _give_signature(function: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> None:
    """Let typer see these parameters, all by name."""
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    function.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in named}


def _ask(words: Sequence[str], flags: Mapping[str, Any], defaults: Mapping[str, Any]) -> Asked:
    """The request of a command line, and of its run file if it names one."""
    with without_collections():
        from hippynn_mf.runs.build import build_settings
        from hippynn_mf.runs.run_file import merged, read_run_file

    run_file, names, files = split_words(words)
    changes = read_values(flags, names, files)
    before = Request() if run_file is None else read_run_file(run_file, replaced=set(changes))
    request = merged(before, changes)
    asked_for = request.preset
    said = request.model_fields_set | ({"experiments"} if request.labels else set())
    request = request.model_copy(
        update={name: value for name, value in defaults.items() if name not in said}
    )
    with errors_about(run_file) if run_file else nullcontext():
        _refuse_as_folder(request.out)
        known = request.known
        request.check_levels(known)
        experiments = parse_experiments(request.experiment_names, known)
        settings = build_settings(request, experiments)
        return Asked(request, experiments, settings, _preset_reason(request, asked_for, defaults))


def _refuse_as_folder(out: Path) -> None:
    """Raise UserError for results in or below a file, before the data are read."""
    for path in (out, *out.parents):
        if path.is_file():
            raise UserError(f"out = {out}: {path} is a file; name a folder for results.")


def _preset_reason(request: Request, asked_for: str | None, defaults: Mapping[str, Any]) -> str:
    if asked_for is not None:
        return "as asked for"
    if "preset" in defaults:
        return "the default of this command"
    data = "the embedded data" if request.data is None else "data of your own"
    return f"the default with {data}; --preset chooses another"
