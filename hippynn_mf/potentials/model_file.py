"""Model files: safetensors with a card, so that nothing of a file is ever executed.

Tensors are named `<member>.<parameter>`, with the parameters of `Model.parameters`; the card lies
in the header under `hippynn_mf`, the SHA-256 of card and tensors under `sha256`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hippynn_mf.errors import UserError
from hippynn_mf.files import replace_when_complete, require_file
from hippynn_mf.potentials.card import Card
from hippynn_mf.schema import describe_errors

Tensors = Mapping[str, torch.Tensor]  # the parameters of one member, by name

CARD, CHECKSUM = "hippynn_mf", "sha256"
SUFFIX = ".safetensors"
DTYPES = (torch.float32, torch.float64)
FORMAT: int = Card.model_fields["format"].default

# Models that ship with the package, by name.
SHIPPED = MappingProxyType(
    {"mini-ani1x": Path(__file__).parent.parent / "embedded" / "mini-ani1x.safetensors"}
)


def write_model_file(path: Path, card: Card, states: Sequence[Tensors]) -> None:
    """Write the members' parameters and their card, complete or not at all.

    Raises UserError unless the file is named `*.safetensors`.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"A model file is named *{SUFFIX}; found {path.name}.")
    tensors = {
        f"{number}.{name}": tensor.detach().cpu().contiguous()
        for number, state in enumerate(states)
        for name, tensor in state.items()
    }
    text = card.model_dump_json()
    header = {CARD: text, CHECKSUM: checksum(text, tensors)}
    with replace_when_complete(path) as partial:
        partial.write_bytes(save(tensors, metadata=header))


def read_model_file(model: str | Path) -> tuple[Card, list[Tensors]]:
    """Card and members' parameters of a file, or of a shipped model by its name.

    Raises UserError that says whether the file is missing, truncated, foreign, newer or damaged.
    """
    path = SHIPPED.get(str(model), Path(model))
    if not path.exists():
        raise UserError(
            f"No model file {path}. Give a file written by 'hippynn-mf export', or the name of a "
            f"model that ships with the package: {', '.join(SHIPPED)}."
        )
    if path.is_dir():
        raise UserError(
            f"{path} is a folder; a model file was expected. 'hippynn-mf export {path} --out "
            "model.safetensors' makes one of a run."
        )
    require_file(path, "a model file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} {_what_is_wrong(path)} ({error}).") from None
    if CARD not in header:
        raise UserError(
            f"{path} is a safetensors file of something else: its header has no {CARD!r}. Model "
            "files are written by 'hippynn-mf export'."
        )
    card = _read_card(path, header[CARD])
    wrong = sorted({str(t.dtype) for t in tensors.values() if t.dtype not in DTYPES})
    if wrong:
        raise UserError(f"{path} is damaged: parameters of {', '.join(wrong)}; float was expected.")
    if header.get(CHECKSUM) != checksum(header[CARD], tensors):
        raise UserError(f"{path} is damaged: its content does not have its SHA-256. Copy it again.")
    states: list[dict[str, torch.Tensor]] = [{} for _ in card.members]
    for name, tensor in tensors.items():
        number, _, parameter = name.partition(".")
        if not number.isdecimal() or int(number) >= len(states):
            raise UserError(f"{path} is damaged: {name} belongs to no member of {len(states)}.")
        states[int(number)][parameter] = tensor
    return card, list(states)


def _read_card(path: Path, text: str) -> Card:
    try:
        number = json.loads(text).get("format")
        if isinstance(number, int) and number > FORMAT:
            raise UserError(
                f"{path} has model format {number}, newer than {FORMAT}, which this version of "
                "hippynn_mf reads. Install a newer hippynn_mf."
            )
        return Card.model_validate_json(text)
    except ValidationError as error:
        wrong = describe_errors(error)
        raise UserError(f"{path} is damaged: its card is not valid ({wrong}).") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its card is not valid ({error}).") from None


def _what_is_wrong(path: Path) -> str:
    """Of a file that is not whole safetensors: by its first bytes."""
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError:
        return "cannot be opened"
    if start[8:9] == b"{" or not start:
        return "is truncated or damaged. Copy it again"
    if re.match(rb"PK|\x80[\x02-\x05]", start):
        return (
            "is a pickled file, as of torch.save; loading such files can run code. Of a run, "
            "'hippynn-mf export' makes a model file"
        )
    return "is not a model file: it is not safetensors"


def checksum(card: str, tensors: Tensors) -> str:
    """SHA-256 of a card's text and all tensors with their names, types and shapes."""
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
