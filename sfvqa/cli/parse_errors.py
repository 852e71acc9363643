"""What is wrong with a command line, a variable or the config file, in our words instead of the parser's."""

from typing import Any

import typer

from sfvqa.cli.user_config import user_config_path


def describe_parse_error(error: typer.TyperException) -> tuple[str, str]:
    """What happened and what to do, a sentence each; a value is blamed on where it came from."""
    message = _invalid_value(error) if _has_value(error) else error.format_message()
    return _end(message), _remedy(error)


def _has_value(error: typer.TyperException) -> bool:
    return type(error) is typer.BadParameter and getattr(error, "param", None) is not None


def _invalid_value(error: Any) -> str:
    reason = error.message.removeprefix("Value error, ")  # pydantic's, from inside typer
    checks = getattr(error.__cause__, "errors", None)
    if checks is not None:
        reason = reason.replace("Input should", f"“{checks()[0]['input']}” should", 1)
    return f"Invalid value for {_origin(error)}: {reason}"


def _origin(error: Any) -> str:
    """The flag, the variable or the line of the config file that gave the value."""
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx else None
    match source.name if source else None:
        case "ENVIRONMENT":
            return str(error.param.envvar)
        case "DEFAULT_MAP":
            return f"`{error.param.name}` in {user_config_path()}"
        case _:
            return str(error.param_hint or " / ".join(error.param.opts))


def _remedy(error: Any) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    if not path:
        return ""
    option = getattr(error, "option_name", "")
    if option and not option.startswith("--"):  # -d of -dash.mp4
        return f"See `{path} --help`; write -- before a file or a question that begins with a dash."
    return f"See `{path} --help`."


def _end(message: str) -> str:
    return message if not message or message[-1] in ".!?…" else f"{message}."
