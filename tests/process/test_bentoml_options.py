"""`serving.process.bentoml_options`: which options of BentoML somebody has set in vain."""

from serving.process.bentoml_options import ignored_options

USUAL = {"workers": 1, "traffic": {"timeout": 60.0}, "http": {"port": 3000, "cors": {"enabled": False}}}


def test_what_nobody_has_set_is_not_told():
    assert ignored_options(USUAL, USUAL) == {}


def test_what_is_followed_is_not_told():
    assert ignored_options({"workers": 2, "http": {"port": 80}}, USUAL) == {}


def test_what_is_not_followed_is_told_with_what_there_is_instead():
    wanted = {"traffic": {"timeout": 3, "max_concurrency": 1}, "http": {"cors": {"enabled": True}}}
    told = ignored_options(wanted, USUAL)
    assert set(told) == {"traffic.timeout", "traffic.max_concurrency", "http.cors.enabled"}
    assert told["http.cors.enabled"] == "set SERVING_CORS_ORIGINS"
