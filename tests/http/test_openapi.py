"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apispec
import flask_smorest
import pytest
from flask import Flask
from flask.views import MethodView

from flask_durable.access import Permission
from flask_durable.core.ids import RESERVED_IDS
from flask_durable.http.routes import ROUTES

from .conftest import KEY, PREFIX, Site, SiteMaker


def document_of(site: Site, **options: Any) -> dict[str, Any]:
    response = site.get("/openapi.json", **options)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    document: dict[str, Any] = response.get_json()
    return document


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield method, path, operation


def references_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from references_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references_of(inner)


def start_parameter(document: dict[str, Any]) -> dict[str, Any]:
    (parameter,) = document["paths"][f"{PREFIX}/start/{{orchestratorName}}"]["parameters"]
    assert isinstance(parameter, dict)
    return parameter


def test_the_document_holds_every_native_route_and_nothing_else(site: Site) -> None:
    document = document_of(site)

    assert document["openapi"] == "3.1.0"
    assert {(method.upper(), re.sub(r"\{(\w+)\}", r"<\1>", path)) for method, path, _ in operations_of(document)} == {
        (route.method, PREFIX + route.path) for route in ROUTES
    }


def test_every_operation_is_explained(site: Site) -> None:
    operations = list(operations_of(document_of(site)))

    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids) == len(ROUTES)
    for _, _, operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert {"403", "500", "503"} <= set(operation["responses"])
        assert all(parameter["description"] for parameter in operation.get("parameters", []))
        assert not [line for line in operation["description"].splitlines() if line.startswith("Args")]


def test_every_reference_and_link_leads_somewhere(site: Site) -> None:
    document = document_of(site)

    for reference in references_of(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target
    ids = {operation["operationId"] for _, _, operation in operations_of(document)}
    links = document["paths"][f"{PREFIX}/start/{{orchestratorName}}"]["post"]["responses"]["202"]["links"]
    assert "getInstance" in {link["operationId"] for link in links.values()} <= ids
    assert all(name.startswith("Durable") for kind in ("schemas", "responses") for name in document["components"][kind])


def test_the_orchestrators_are_those_registered_by_now(make_site: SiteMaker) -> None:
    site = make_site()
    assert start_parameter(document_of(site))["schema"] == {"type": "string", "enum": ["echo", "failing", "parent", "waiter"]}

    @site.durable.orchestrator
    def another(ctx: Any, value: Any) -> Any:
        yield ctx.wait_for_external_event("x")

    assert "another" in start_parameter(document_of(site))["schema"]["enum"]


def test_the_document_says_which_keys_are_needed(make_site: SiteMaker) -> None:
    keyed, plain = document_of(make_site(DURABLE_API_KEYS=[KEY]), headers={"X-Api-Key": KEY}), document_of(make_site())

    assert set(keyed["components"]["securitySchemes"]) == {"DurableApiKey", "DurableBearer"}
    assert all(operation["security"] and "401" in operation["responses"] for _, _, operation in operations_of(keyed))
    assert "securitySchemes" not in plain["components"]
    assert not any("security" in operation or "401" in operation["responses"] for _, _, operation in operations_of(plain))


def test_every_route_states_its_permission() -> None:
    assert {(route.method, route.path): route.permission for route in ROUTES} == {
        ("POST", "/start/<orchestratorName>"): Permission.START,
        ("GET", ""): Permission.READ,
        ("DELETE", ""): Permission.PURGE,
        ("GET", "/versions"): Permission.READ,
        ("GET", "/<instanceId>"): Permission.READ,
        ("GET", "/<instanceId>/history"): Permission.READ,
        ("POST", "/<instanceId>/raiseEvent/<eventName>"): Permission.EVENT,
        ("POST", "/<instanceId>/terminate"): Permission.CONTROL,
        ("POST", "/<instanceId>/suspend"): Permission.CONTROL,
        ("POST", "/<instanceId>/resume"): Permission.CONTROL,
        ("POST", "/<instanceId>/rewind"): Permission.CONTROL,
        ("POST", "/<instanceId>/restart"): Permission.CONTROL,
        ("DELETE", "/<instanceId>"): Permission.PURGE,
    }


def test_the_static_words_of_the_routes_are_reserved_as_ids(site: Site) -> None:
    rules = [rule.rule.removeprefix(PREFIX) for rule in site.app.url_map.iter_rules() if rule.rule.startswith(PREFIX)]
    words = {rule.split("/")[1] for rule in rules if rule and not rule.startswith("/<")}
    assert words == RESERVED_IDS


# ---------------------------------------------------------------- Swagger UI


@pytest.mark.parametrize(("path", "here"), [("/docs", ""), ("/docs/", "../")])
def test_the_page_uses_addresses_relative_to_itself_and_a_nonce(site: Site, path: str, here: str) -> None:
    one, two = site.get(path), site.get(path)
    html = one.get_data(as_text=True)

    assert one.headers["Content-Type"].startswith("text/html")
    assert f'src="{here}docs/swagger-ui-bundle.js"' in html
    assert f'new URL("{here}openapi.json"' in html
    assert "validatorUrl: null" in html
    assert not re.findall(r"https?://", html)
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', html))
    policy = one.headers["Content-Security-Policy"]
    assert f"script-src 'self' 'nonce-{nonce}';" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert policy != two.headers["Content-Security-Policy"]


def test_the_assets_come_from_this_machine(site: Site) -> None:
    script = site.get("/docs/swagger-ui-bundle.js")
    assert script.status_code == 200
    assert len(script.data) > 100_000
    assert site.get("/docs/swagger-ui.css").mimetype == "text/css"
    assert site.get("/docs/favicon-32x32.png").status_code == 200
    for bad in ("index.html", "../__init__.py", "%2e%2e/__init__.py", "LICENSE"):
        assert site.get(f"/docs/{bad}").status_code == 404


def test_without_the_assets_the_page_says_what_to_install(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_durable.http.swagger.asset_folder", lambda: None)

    assert "pip install flask-swagger-ui" in site.get("/docs").get_data(as_text=True)
    assert site.get("/docs/swagger-ui.css").status_code == 404
    assert site.get("/openapi.json").status_code == 200


# ---------------------------------------------------------------- beside the host's own Api


class Pets(MethodView):
    """Pets of the host."""

    def get(self) -> Any:
        """List pets."""
        flask_smorest.abort(404, message="no pets")


def host_app(version: str = "3.0.3", prefix: str = "") -> tuple[Flask, flask_smorest.Api]:
    app = Flask("host")
    key = f"{prefix}_" if prefix else ""
    app.config.update({f"{key}API_TITLE": "Pets", f"{key}API_VERSION": "1", f"{key}OPENAPI_VERSION": version, f"{key}OPENAPI_URL_PREFIX": "/"})
    api = flask_smorest.Api(app, config_prefix=prefix)
    blueprint = flask_smorest.Blueprint("pets", __name__, url_prefix="/pets")
    blueprint.route("/")(Pets)
    api.register_blueprint(blueprint)
    return app, api


@pytest.mark.parametrize("version", ["3.1.0", "3.0.3"])
def test_the_hosts_api_lists_our_routes_and_stays_as_it_was(make_site: SiteMaker, version: str) -> None:
    app, _ = host_app(version)
    site = make_site(app)

    document = site.http.get("/openapi.json").get_json()
    ours = {path for path in document["paths"] if path.startswith(PREFIX)}
    assert ours == set(document_of(site)["paths"])
    assert "/pets/" in document["paths"]
    assert "/pets/" not in document_of(site)["paths"]
    assert site.http.get("/pets/").get_json() == {"code": 404, "message": "no pets", "status": "Not Found"}
    assert site.http.get("/nowhere").get_json() == {"code": 404, "status": "Not Found"}
    assert site.get("/nope").get_json()["code"] == "instance_not_found"
    assert site.post("/start/waiter", json={"inputt": 1}).status_code == 400
    assert "inputt" in site.post("/start/waiter", json={"inputt": 1}).get_json()["errors"]
    assert site.get("/docs").status_code == 200


def test_an_api_of_openapi_2_cannot_say_what_we_need_and_is_left_alone(make_site: SiteMaker) -> None:
    app, api = host_app("2.0")
    site = make_site(app)

    assert list(api.spec.to_dict()["paths"]) == ["/pets/"]
    assert len(document_of(site)["paths"]) == len({route.path for route in ROUTES})


def test_the_only_api_with_a_config_prefix_is_joined_too(make_site: SiteMaker) -> None:
    app, api = host_app(prefix="SHOP")
    make_site(app)
    assert f"{PREFIX}/{{instanceId}}" in api.spec.to_dict()["paths"]


def test_without_an_api_of_the_host_its_error_pages_stay_html(site: Site) -> None:
    response = site.http.get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "text/html")


def test_an_api_that_the_host_makes_later_is_not_disturbed(make_site: SiteMaker) -> None:
    app = Flask("host")
    app.config.update(API_TITLE="Pets", API_VERSION="1", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/")
    site = make_site(app)
    flask_smorest.Api(app)

    assert site.http.get("/nowhere").get_json() == {"code": 404, "status": "Not Found"}
    assert site.get("/nope").get_json()["code"] == "instance_not_found"
    assert site.http.get("/openapi.json").get_json()["paths"] == {}
    assert len(document_of(site)["paths"]) == len({route.path for route in ROUTES})


def test_the_document_is_written_when_it_is_asked_for_and_once(make_site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = apispec.APISpec.path
    monkeypatch.setattr(apispec.APISpec, "path", lambda self, *args, **options: written.append(str(options["rule"])) or write(self, *args, **options))
    site = make_site()
    assert written == []
    with ThreadPoolExecutor(4) as threads:
        documents = list(threads.map(lambda _: document_of(site), range(4)))
    assert all(document == documents[0] for document in documents)
    assert len(written) == len(ROUTES)
