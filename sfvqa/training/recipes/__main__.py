"""`python -m sfvqa.training.recipes NAME`: print the path of an accelerate config, for `accelerate launch`."""

import argparse
from pathlib import Path

RECIPES = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def main(arguments: list[str] | None = None) -> None:
    """Print the path."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.recipes", description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    print(RECIPES[parser.parse_args(arguments).name])


if __name__ == "__main__":
    main()
