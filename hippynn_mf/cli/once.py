"""Options that are given once, and words that are not empty, for every command."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

LISTS = ("experiments", "seeds", "split_seeds")  # which say themselves what an empty one lacks


class OnceCommand(TyperCommand):
    """A command that refuses what would silently be taken in another way than it was meant.

    Of an option that is given twice click takes the last; and an empty word, as of a variable of
    the shell that is not set, would be the folder where one is.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as click does; BadParameter for an option twice, and for an empty word."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option, count in Counter(order).items():
            if not isinstance(option, TyperOption):
                continue
            if count > 1 and not (option.multiple or option.is_flag):
                raise typer.BadParameter("it is given twice; leave one out.", ctx, option)
        for parameter in self.params:
            if not isinstance(parameter, TyperArgument | TyperOption):
                continue
            value = values.get(parameter.name)
            given = value if isinstance(value, list | tuple) else [value]
            if "" in given and parameter.name not in LISTS:
                raise typer.BadParameter("it is empty.", ctx, parameter)
        return super().parse_args(ctx, args)
