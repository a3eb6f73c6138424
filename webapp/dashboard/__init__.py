"""The dashboard: pages drawn on the server, kept live by small scripts that speak to the API."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    from webapp.dashboard import datasets, formats, jobs, login, new_job, pages, storage
    from webapp.dashboard.blueprint import blueprint

    # Imported for their views, which register themselves with the blueprint.
    for module in (datasets, jobs, login, new_job, pages, storage):
        assert module.blueprint is blueprint
    formats.init_app(app)
    app.register_blueprint(blueprint)
