"""The request body as in tutorials, for these columns."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model

PYTHON_TYPES: dict[str, type] = {
    "string": str,
    "long": int,
    "integer": int,
    "double": float,
    "float": float,
    "boolean": bool,
}


def make_body() -> type[BaseModel]:
    """Returns the model of `{"instances": [{column: value, …}, …]}` for the columns of the model served."""
    facts = json.loads(Path(os.environ["BENCHMARK_FACTS"]).read_text())
    fields: dict[str, Any] = {
        column["name"]: (PYTHON_TYPES[column["type"]], ...) for column in facts["columns"]
    }
    row = create_model("Row", **fields)
    return create_model("Body", instances=(list[row], ...))  # type: ignore[valid-type]  # made at run time
