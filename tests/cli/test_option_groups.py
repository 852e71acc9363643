"""A command takes groups of options, and each group knows where its values came from."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from sfvqa.cli.options import RARE, Command, OptionGroup, Source, compose


@dataclass(frozen=True, kw_only=True)
class Drink(OptionGroup):
    panel = "What to drink"

    cups: Annotated[int, typer.Option(envvar="TEST_CUPS")] = 1
    tea: Annotated[str | None, typer.Option(envvar="TEST_TEA")] = None
    coffee: Annotated[str | None, typer.Option(envvar="TEST_COFFEE"), RARE] = None
    is_served: bool = False

    def __post_init__(self) -> None:
        if self.tea and self.coffee:
            self.overrule(min("tea", "coffee", key=self.source))


@dataclass(frozen=True, kw_only=True)
class SweetDrink(Drink):
    sugar: Annotated[float, typer.Option(parser=float)] = 0.5


def run(*arguments: str, config: dict[str, str] | None = None, **variables: str) -> tuple[str, SweetDrink]:
    served = []

    def serve(who: str, *, drink: SweetDrink, loudly: bool = False) -> None:
        served.append((f"{who}{'!' if loudly else ''}", drink))

    app = typer.Typer()
    app.command(cls=Command)(compose(serve))
    found = CliRunner().invoke(app, arguments, env=variables, default_map=config, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return served[0]


def test_options_of_groups_and_of_the_command_arrive() -> None:
    assert run("Ann", "--cups", "2", "--sugar", "1", "--loudly") == ("Ann!", SweetDrink(cups=2, sugar=1.0))
    assert run("Ann") == ("Ann", SweetDrink())


def test_a_group_knows_where_its_values_came_from() -> None:
    _, drink = run("Ann", "--tea", "green", config={"sugar": "1", "cups": "3"}, TEST_CUPS="2")
    assert (drink.cups, drink.sugar) == (2, 1.0)
    assert [drink.source(name) for name in ("tea", "cups", "sugar", "coffee")] == [
        Source.FLAG, Source.VARIABLE, Source.CONFIG_FILE, Source.DEFAULT,
    ]  # fmt: skip
    assert drink.is_flag("tea")


@pytest.mark.parametrize(
    ("flag", "variables", "config", "left"),
    [
        (("--tea", "t"), {"TEST_COFFEE": "c"}, {}, ("t", None)),
        ((), {"TEST_COFFEE": "c"}, {"tea": "t"}, (None, "c")),
        (("--coffee", "c"), {}, {"tea": "t"}, (None, "c")),
    ],
)
def test_the_stronger_of_two_overrules_the_other(
    flag: tuple[str, ...], variables: dict[str, str], config: dict[str, str], left: tuple[str | None, str | None]
) -> None:
    _, drink = run("Ann", *flag, config=config, **variables)
    assert (drink.tea, drink.coffee) == left


def test_rare_options_and_variables_are_in_help_all_only() -> None:
    app = typer.Typer()
    app.command(cls=Command)(compose(lambda: None))

    def serve(*, drink: Drink) -> None:
        raise AssertionError(drink)

    app = typer.Typer()
    app.command(cls=Command)(compose(serve))
    brief, whole = (CliRunner().invoke(app, [flag]).output for flag in ("--help", "--help-all"))
    assert ("--tea" in brief, "--coffee" in brief, "TEST_TEA" in brief) == (True, False, False)
    assert ("--tea" in whole, "--coffee" in whole, "TEST_TEA" in whole) == (True, True, True)
    assert "What to drink" in brief
    assert "served" not in whole
