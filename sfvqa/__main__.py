"""`sfvqa` and `python -m sfvqa`: hand the arguments to the command line, return its exit code."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's own arguments) and return the exit code."""
    try:
        from sfvqa.cli.exits import run  # inside, so that Ctrl-C is handled from the first import on

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
