"""What is said of a setting that cannot be used."""

import pytest

from serving.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"WORKERS": "many"},
            "SERVING_WORKERS: input should be a valid integer, unable to parse string .*, got 'many'",
        ),
        ({"READABLE_PATHS": "x"}, "SERVING_READABLE_PATHS: each path begins with /, got 'x'"),
        (
            {"FEEDBACK_STORE": "sqlite"},
            "SERVING_FEEDBACK_STORE: feedback needs a prediction log .SERVING_LOG_PREDICTIONS.",
        ),
        (
            {"LOG_PREDICTIONS": "log", "FEEDBACK_STORE": "mysql://u:secret@host/x"},
            "SERVING_FEEDBACK_STORE: expected sqlite or a URL that begins with postgresql://$",
        ),
        (
            {"QUALITY_SLICES": "region", "LOG_EXCLUDE": "*"},
            "SERVING_QUALITY_SLICES: inputs that are excluded",
        ),
    ],
)
def test_names_the_variable_and_what_was_expected(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(f"SERVING_{name}", value)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings()
    assert "secret" not in str(caught.value)
