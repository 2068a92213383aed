"""Checking a call's arguments against the tool's JSON schema."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

ArgumentCheck = Callable[[Mapping[str, Any]], str | None]
_MAX_COMPLAINT = 300


def compile_check(name: str, schema: Mapping[str, Any]) -> ArgumentCheck:
    """A function from a call's arguments to what is wrong with them, or None.

    Args:
        name: the tool's name, for messages.
        schema: its OpenAI function schema.

    Raises:
        ValueError: `schema` has no valid JSON schema at function.parameters.
    """
    try:
        parameters = schema["function"]["parameters"]
        validator = _validator(json.dumps(parameters))
    except (KeyError, TypeError, SchemaError) as error:
        reason = error.message if isinstance(error, SchemaError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"the schema of tool {name!r} has no valid function.parameters: {reason}") from error

    def check(arguments: Mapping[str, Any]) -> str | None:
        try:
            error = best_match(validator.iter_errors(arguments))
        except RecursionError:  # in a schema that refers to itself
            return f"the arguments of {name} are nested too deeply"
        if error is None:
            return None
        message = error.message
        if len(message) > _MAX_COMPLAINT:
            half = _MAX_COMPLAINT // 2
            message = f"{message[:half]} ... {message[-half:]}"
        return f"the arguments of {name} do not fit its schema at {error.json_path}: {message}"

    return check


@functools.lru_cache(maxsize=256)
def _validator(parameters: str) -> Draft202012Validator:
    """Compiled once per schema and process: every environment of a kind shares it."""
    schema = json.loads(parameters)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
