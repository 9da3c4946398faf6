"""`compose.yaml` is what Docker Compose takes, opens nothing by itself, and agrees with the service and its neighbours."""

import inspect
import ipaddress
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer

from serving.settings import load_settings, unknown_variables
from tests.compose.configuring import (
    ALERTMANAGER,
    FILE,
    GRAFANA,
    MODEL_SERVERS,
    NGINX_CONF,
    PASSWORDS,
    PROMETHEUS,
    SERVICES,
    SLACK_AND_EMAIL,
    compose,
    directive,
    listens,
    mounted,
    network,
    read_compose,
    seconds,
    service,
)
from tests.kubernetes.queries import rules
from tests.support.environment import ROOT, clean_environment

EVERY_SERVICE = pytest.mark.parametrize("name", SERVICES)
EVERY_SERVER = pytest.mark.parametrize("name", MODEL_SERVERS)

PORT = BentoMLContainer.http.port.get()
PAGE = (ROOT / "docs" / "compose.md").read_text()


def settings_of(name, monkeypatch):
    with monkeypatch.context() as patch:
        for variable in set(os.environ) - set(clean_environment()):
            patch.delenv(variable)
        for variable, value in service(name)["environment"].items():
            patch.setenv(variable, value)
        return load_settings()


@pytest.mark.parametrize("missing", PASSWORDS)
def test_nothing_starts_without_passwords(missing):
    told = read_compose(**{name: value for name, value in PASSWORDS.items() if name != missing})
    assert told.returncode != 0
    assert f"{missing} is missing a value: see docs/compose.md" in told.stderr


def test_the_pages_passwords_stay_when_it_is_done_again(tmp_path):
    (command,) = re.findall(r"^\$ (for name in DATABASE_PASSWORD .*?; done)", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / ".env").write_text("LISTEN=127.0.0.1:80\n")

    def do() -> dict[str, str]:
        subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, timeout=20)
        return dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())

    first = do()
    assert set(first) == {"LISTEN", *PASSWORDS}
    assert all(re.fullmatch("[0-9a-f]{32}", first[name]) for name in PASSWORDS)
    assert do() == first


def test_no_password_stands_in_the_file():
    given = {
        value
        for name in SERVICES
        for variable, value in service(name).get("environment", {}).items()
        if "PASSWORD" in variable
    }
    assert given == set(PASSWORDS.values())


@EVERY_SERVICE
def test_every_image_has_a_version_and_names_no_host(name):
    if "build" in service(name):
        build = service(name)["build"]
        dockerfile = Path(build["context"], build["dockerfile"]).read_text()
        (image,) = re.findall(r"^FROM (\S+)$", dockerfile, re.MULTILINE)
        assert "--require-hashes" in dockerfile
    else:
        image = service(name)["image"]
    repository, _, tag = image.rpartition(":")
    assert re.match(r"v?\d+\.\d+", tag) or image == "mlflow-model-server:local"
    assert not re.search(r"[.:]", repository.partition("/")[0])


@EVERY_SERVICE
def test_every_container_may_do_as_little_as_it_can(name):
    described = service(name)
    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in described
    assert "cap_add" not in described
    assert described["restart"] == "unless-stopped"
    limits = described["deploy"]["resources"]["limits"]
    assert int(limits["memory"]) <= 1.5 * 2**30
    assert 0 < limits["pids"] <= 200


@EVERY_SERVICE
def test_every_service_says_how_it_does(name):
    assert service(name)["healthcheck"]["test"][0] == "CMD"


def test_nothing_waits_for_a_model():
    """The registry is empty at first."""
    waits = {
        (name, condition["condition"])
        for name in SERVICES
        for other, condition in service(name).get("depends_on", {}).items()
        if other in MODEL_SERVERS
    }
    assert waits == {("nginx", "service_started")}


def test_all_of_it_is_open_to_this_machine_only():
    ports = [port for name in SERVICES for port in service(name).get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert sorted(published) == ["3000", "3001", "5000", "9090", "9093"]
    for port in published:
        assert f"127.0.0.1:{port}" in PAGE
    assert [name for name in SERVICES if not listens(name)] == [*MODEL_SERVERS, "database"]


def test_the_database_is_on_a_network_of_its_own():
    assert list(service("database")["networks"]) == ["database"]
    assert compose()["networks"]["database"]["internal"] is True
    assert [name for name in SERVICES if "database" in service(name)["networks"]] == ["mlflow", "database"]


@EVERY_SERVICE
def test_what_is_mounted_is_there_and_read_only(name):
    for volume in service(name).get("volumes", []):
        if volume["type"] == "bind":
            assert volume["read_only"] is True
            source = Path(volume["source"])
            assert source == Path("/dev/null") or (source.exists() and source.is_relative_to(ROOT))
        else:
            assert volume["source"] in compose()["volumes"]


def test_every_volume_is_used():
    used = {volume["source"] for name in SERVICES for volume in service(name).get("volumes", [])}
    assert set(compose()["volumes"]) <= used


def test_every_variable_of_the_file_is_documented():
    for variable in set(re.findall(r"\$\{(\w+)", FILE.read_text())):
        assert f"`{variable}" in PAGE, variable
        assert re.search(rf"^#?{variable}=", (ROOT / ".env.example").read_text(), re.MULTILINE), variable


@EVERY_SERVER
def test_every_setting_is_one_that_is_read_and_can_be_used(name, monkeypatch):
    environment = service(name)["environment"]
    assert unknown_variables(environment) == {}
    assert {one for one in environment if not one.startswith("SERVING_")} == {"MLFLOW_TRACKING_URI"}
    assert settings_of(name, monkeypatch).model_name == "churn"


def test_the_model_servers_differ_in_their_addresses_only():
    assert len(MODEL_SERVERS) == 2
    described = [dict(service(name)) for name in MODEL_SERVERS]
    addresses = {one.pop("networks")["default"]["ipv4_address"] for one in described}
    assert described[0] == described[1]
    assert len(addresses) == 2


@EVERY_SERVER
def test_a_model_server_has_time_to_end(name, monkeypatch):
    settings = settings_of(name, monkeypatch)
    assert settings.drain_seconds + settings.shutdown_seconds < seconds(service(name)["stop_grace_period"])


@EVERY_SERVER
def test_memory_is_enough_to_prepare_beside_the_worker(name):
    told = (ROOT / "docs" / "performance.md").read_text()
    at_rest, more = re.search(r"(\d+) MB at rest.*?takes (\d+) MB\s+more", told, re.DOTALL).groups()
    limit = int(service(name)["deploy"]["resources"]["limits"]["memory"])
    assert limit > (int(at_rest) + int(more)) * 1e6


def test_nginx_asks_the_model_servers_where_they_are():
    asked = re.findall(r"^ +server ([^:]+):(\d+) .*?( backup)?;", NGINX_CONF.read_text(), re.MULTILINE)
    assert asked == [(name, str(PORT), backup) for backup in ("", " backup") for name in MODEL_SERVERS]
    where = {name: service(name)["networks"]["default"]["ipv4_address"] for name in MODEL_SERVERS}
    assert dict(re.split("[:=]", host, maxsplit=1) for host in service("nginx")["extra_hosts"]) == where
    assert listens("nginx") == {int(directive("listen"))}


def test_nobody_else_is_given_an_address_of_theirs():
    whole, at_random = network()
    assert at_random.subnet_of(whole)
    for name in MODEL_SERVERS:
        address = ipaddress.IPv4Address(service(name)["networks"]["default"]["ipv4_address"])
        assert address in whole
        assert address not in at_random


@EVERY_SERVER
def test_nginx_takes_bodies_as_large_as_the_service_does(name, monkeypatch):
    limit = settings_of(name, monkeypatch).max_body_bytes
    assert directive("client_max_body_size") == str(limit)
    assert f"larger than the limit of {limit} bytes" in NGINX_CONF.read_text()


def test_nginx_answers_what_it_took_before_it_ends():
    patience = seconds(directive("proxy_read_timeout"))
    assert f"took longer than {patience:g} seconds" in NGINX_CONF.read_text()
    assert patience < seconds(service("nginx")["stop_grace_period"])


@EVERY_SERVER
def test_the_service_says_itself_what_took_too_long(name, monkeypatch):
    assert settings_of(name, monkeypatch).request_timeout_seconds < seconds(directive("proxy_read_timeout"))


def test_nginx_closes_connections_before_the_servers_do():
    theirs = inspect.signature(uvicorn.Config).parameters["timeout_keep_alive"].default
    (ours,) = re.findall(r"^        keepalive_timeout (\S+);", NGINX_CONF.read_text(), re.MULTILINE)
    assert seconds(ours) < theirs


def test_the_tracking_server_lets_in_who_asks_for_it():
    environment = service("mlflow")["environment"]
    allowed = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    (port,) = service("mlflow")["ports"]
    from_within = {
        urlsplit(service(name)["environment"]["MLFLOW_TRACKING_URI"]).netloc for name in MODEL_SERVERS
    }
    assert from_within == {"mlflow:5000"}
    assert set(allowed) == {
        *from_within,
        *(f"{host}:{port['published']}" for host in ("127.0.0.1", "localhost")),
    }
    command = service("mlflow")["command"]
    assert command[command.index("--port") + 1] == str(port["target"]) == "5000"


def test_the_tracking_server_keeps_what_it_has_on_volumes():
    environment = service("mlflow")["environment"]
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] in {
        one["target"] for one in service("mlflow")["volumes"]
    }
    database = service("database")["environment"]
    uri = urlsplit(environment["MLFLOW_BACKEND_STORE_URI"])
    assert (uri.username, uri.password, uri.hostname) == (database["POSTGRES_USER"], None, "database")
    assert uri.path == f"/{database['POSTGRES_DB']}"
    assert environment["PGPASSWORD"] == database["POSTGRES_PASSWORD"] == PASSWORDS["DATABASE_PASSWORD"]
    assert service("mlflow")["depends_on"]["database"]["condition"] == "service_healthy"


def test_the_tracking_server_is_as_old_as_its_clients():
    locked = {
        name: re.search(
            r"^mlflow(?:-skinny)?==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE
        )[1]
        for name in ("registry.txt", "serving.txt")
    }
    assert len(set(locked.values())) == 1, locked


def test_the_addresses_can_be_moved():
    told = read_compose(**PASSWORDS, NETWORK="10.99.0")
    assert told.returncode == 0
    whole, _ = network()
    assert str(whole.network_address).rpartition(".")[0] not in told.stdout
    assert told.stdout.count("10.99.0.") == 6


def test_prometheus_asks_every_model_server_by_name():
    settings = yaml.safe_load(PROMETHEUS.read_text())
    (job,) = settings["scrape_configs"]
    (targets,) = job["static_configs"]
    assert targets == {"targets": [f"{name}:{PORT}" for name in MODEL_SERVERS]}
    assert "metrics_path" not in job
    assert {name for rule in rules() for name in re.findall(r'job="([^"]*)"', rule["expr"])} == {
        job["job_name"]
    }


def test_prometheus_and_alertmanager_find_their_files_and_each_other():
    for name, file in (("prometheus", PROMETHEUS), ("alertmanager", ALERTMANAGER)):
        (path,) = (
            one.partition("=")[2] for one in service(name)["command"] if one.startswith("--config.file=")
        )
        assert mounted(name, path) == file
    settings = yaml.safe_load(PROMETHEUS.read_text())
    assert [(PROMETHEUS.parent / file).is_file() for file in settings["rule_files"]] == [True]
    (told,) = settings["alerting"]["alertmanagers"]
    assert told["static_configs"] == [{"targets": [f"alertmanager:{listens('alertmanager').pop()}"]}]
    for file in (ALERTMANAGER, SLACK_AND_EMAIL):
        assert mounted("alertmanager", f"/etc/alertmanager/{file.name}") == file
        for secret in re.findall(r"/run/secrets/\S+", file.read_text()):
            assert mounted("alertmanager", secret) == Path("/dev/null")
    (receiver,) = yaml.safe_load(ALERTMANAGER.read_text())["receivers"]
    (webhook,) = receiver["webhook_configs"]
    assert mounted("alertmanager", webhook["url_file"]) == Path("/dev/null")


def test_grafana_finds_prometheus_and_its_dashboard():
    inside = "/etc/grafana/provisioning"
    assert mounted("grafana", inside) == GRAFANA / "provisioning"
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == f"http://prometheus:{listens('prometheus').pop()}"
    interval = yaml.safe_load(PROMETHEUS.read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/dashboards.yaml").read_text())[
        "providers"
    ]
    assert mounted("grafana", provider["options"]["path"]) == GRAFANA / "dashboards"
    home = service("grafana")["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounted("grafana", home).is_file()


def test_only_what_callers_ask_can_be_opened_to_others():
    told = read_compose(**PASSWORDS, LISTEN="0.0.0.0:80")
    assert told.returncode == 0
    assert [port for port in re.findall(r'"host_ip": "([^"]+)"', told.stdout) if port != "127.0.0.1"] == [
        "0.0.0.0"
    ]
