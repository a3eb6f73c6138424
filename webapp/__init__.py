"""Modelyard's web application: the API, the dashboard, and the rules behind both.

It never imports a training library; see tests/unit/test_api_imports.py.
"""

from __future__ import annotations

from typing import Any

from flask_openapi.openapi import OpenAPI

from modelyard.settings import Settings, load_settings


def create_app(settings: Settings | None = None, **config: Any) -> OpenAPI:
    """Build the application; nothing connects before the first request.

    ``settings`` are read from the environment where they are not given, ``config`` overrides
    Flask's configuration.
    """
    from webapp import api, dashboard, http, telemetry
    from webapp.config import configuration
    from webapp.extensions import db, jwt, limiter, migrate
    from webapp.services import broker, tools
    from webapp.services.executors import check_mode

    settings = settings or load_settings()
    check_mode(settings.execution_mode)

    app = api.make_application(__name__)
    app.config.from_mapping(configuration(settings))
    app.config.from_mapping(config)

    db.init_app(app)
    migrate.init_app(app, db, directory=f"{app.root_path}/migrations", render_as_batch=True)
    jwt.init_app(app)
    limiter.init_app(app)
    broker.init_app(app, settings)
    tools.init_app(app, settings)

    http.init_app(app)
    telemetry.init_app(app)
    api.init_app(app)
    dashboard.init_app(app)
    return app
