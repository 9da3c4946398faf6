"""What `/docs.json` and the greeting show of the rows that were logged with a model."""

from pathlib import Path

import msgspec
import pytest

from serving.http.greeting import greeting
from tests.http.in_process import running_application
from tests.support.models import frame

LOGGED = frame("iris").iloc[0].to_list()


@pytest.mark.parametrize("is_published", [True, False])
def test_logged_rows_are_shown_where_they_may_be(registry_uri: str, tmp_path: Path, is_published: bool):
    with running_application(
        tmp_path,
        registry_uri,
        "iris",
        SERVING_ALLOW_PICKLE="true",
        SERVING_PUBLISH_EXAMPLES=str(is_published),
    ) as application:
        document = application.get("/docs.json")
        body = document.json()["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
        assert application.predict(body["example"]["instances"])
        router = application.gateway._router
        greeted = greeting(router.model, "http://h", is_published=is_published)
    assert (list(body["example"]["instances"][0].values()) == LOGGED) == is_published
    shown = msgspec.json.encode(LOGGED[0]).decode()
    assert (f":{shown}," in document.text) == is_published
    assert (f":{shown}," in greeted) == is_published
