"""Whether a new version accepts the requests of the current one."""

from serving.model.schema import Column, Form, Kind, Param, Schema, Type

WIDER = {
    Kind.INTEGER: {Kind.LONG, Kind.DOUBLE},
    Kind.LONG: {Kind.DOUBLE},
    Kind.FLOAT: {Kind.DOUBLE},
}
"""Types that can represent the values of another: of `long` all up to 2^53; larger ones are rejected one by one."""


def find_incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Returns why the new version would reject requests of the old one, one clause each; empty if it would not."""
    if old.form is not new.form:
        return [f"a row was {old.form.value} and is {new.form.value}"]
    return _columns(old, new) + _params(old, new)


def _columns(old: Schema, new: Schema) -> list[str]:
    if old.form is Form.ARRAY and len(old.columns) != len(new.columns):
        return [f"a row had {len(old.columns)} values and has {len(new.columns)}"]
    before = {column.name: column for column in old.columns}
    after = {column.name: column for column in new.columns}
    found = [f"it has no column {name!r}" for name in before.keys() - after.keys()]
    for name, column in after.items():
        if name not in before:
            if column.required:
                found.append(f"it requires the column {name!r}")
        else:
            found += _column(before[name], column)
    return sorted(found)


def _column(before: Column, after: Column) -> list[str]:
    if not _takes(after.type, before.type):
        return [f"column {after.name!r} was {before.type} and is {after.type}"]
    if after.required and not before.required:
        return [f"it requires the column {after.name!r}"]
    if before.may_be_missing and not after.may_be_missing:
        return [f"column {after.name!r} may no longer be null"]
    return []


def _takes(after: Type, before: Type) -> bool:
    if after == before or after.kind is Kind.ANY:
        return True
    if after.kind is before.kind is Kind.TENSOR:
        fits = len(after.shape) == len(before.shape) and all(
            new in (-1, old) for new, old in zip(after.shape, before.shape, strict=True)
        )
        return fits and after.dtype == before.dtype
    return after.kind in WIDER.get(before.kind, set())


def _params(old: Schema, new: Schema) -> list[str]:
    after = {param.name: param for param in new.params}
    return sorted(
        f"it has no parameter {param.name!r}"
        if param.name not in after
        else f"parameter {param.name!r} was {param.type} and is {after[param.name].type}"
        for param in old.params
        if not _takes_param(param, after.get(param.name))
    )


def _takes_param(before: Param, after: Param | None) -> bool:
    return after is not None and after.is_list == before.is_list and _takes(after.type, before.type)
