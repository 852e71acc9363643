"""The command line: the only place that imports typer or rich, and the only one that prints."""
