"""The moto server, repaired, with a door of localcloud's own beside it.

GET  /_localcloud/health     200 once requests are served
POST /_localcloud/settings   {"rds_cluster_quota": 1, …}: see `settings.EmulatorSettings`
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from controlplane.localcloud.aws import fidelity
from controlplane.localcloud.aws.databases import ClusterDatabases
from controlplane.localcloud.aws.endpoint_map import EndpointMap
from controlplane.localcloud.aws.settings import EmulatorSettings

DOOR = "/_localcloud/"
MAX_SETTINGS_BYTES = 64 * 1024


class QuietRequestHandler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: a Terraform run makes hundreds of requests, and errors are logged elsewhere."""


class Application:
    """WSGI: our own paths here, everything else to moto."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self._moto = DomainDispatcherApplication(create_backend_app)
        # moto lists its own folder twice for each request.
        known = lru_cache(1024)(self._moto.get_backend_for_host)
        setattr(self._moto, "get_backend_for_host", known)  # noqa: B010 - no type has a method that is set

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").startswith(DOOR):
            return self._door(Request(environ))(environ, start_response)
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer

    def _door(self, request: Request) -> Response:
        match request.method, request.path.removeprefix(DOOR):
            case "GET", "health":
                return _json({"status": "ok"})
            case "GET", "settings":
                return _json(asdict(self._settings))
            case "POST", "settings":
                return self._change_settings(request)
        return _json(
            {"error": f"{request.method} {request.path}: expected GET health, GET or POST settings"}, 404
        )

    def _change_settings(self, request: Request) -> Response:
        request.max_content_length = MAX_SETTINGS_BYTES
        values = request.get_json(silent=True)
        if not isinstance(values, dict):
            return _json({"error": "body: expected a JSON object"}, 400)
        try:
            self._settings.change(values)
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(asdict(self._settings))


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")


def serve(host: str, port: int, data_dir: Path, endpoint_map: Path) -> None:
    """Serve until SIGTERM or SIGINT; then stop every database server."""
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    os.environ["MOTO_PORT"] = str(port)
    data_dir.mkdir(parents=True, exist_ok=True)
    settings = EmulatorSettings.from_environment()
    databases = ClusterDatabases(data_dir, EndpointMap(endpoint_map))
    fidelity.repair(settings, databases)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    with make_server(
        host, port, Application(settings), threaded=True, request_handler=QuietRequestHandler
    ) as server:
        try:
            server.serve_forever()
        finally:
            databases.close()


def _leave(_signal: int, _frame: Any) -> None:
    raise SystemExit(0)
