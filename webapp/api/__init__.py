"""The HTTP API: one blueprint a resource, thin; the rules are in webapp.services."""

from __future__ import annotations

from flask_openapi.openapi import OpenAPI

from webapp.api import authentication, document, paths, problems, requests


def make_application(import_name: str) -> OpenAPI:
    """Return a Flask application that describes its routes in OpenAPI."""
    app = OpenAPI(
        import_name,
        info=document.INFO,
        security_schemes=document.SECURITY_SCHEMES,
        validation_error_callback=problems.invalid_input,
        doc_ui=False,  # its pages need inline scripts; ours are in document.py
        static_folder=None,
    )
    app.url_map.strict_slashes = False  # /projects and /projects/ are the same list
    app.url_map.merge_slashes = False  # no redirects: none is described
    return app


def init_app(app: OpenAPI) -> None:
    from webapp.api import (
        auth,
        catalog,
        datasets,
        events,
        job_results,
        jobs,
        operations,
        projects,
        storage,
        trained,
        workers,
    )

    paths.init_app(app)
    requests.init_app(app)
    authentication.init_app(app)
    problems.init_app(app)
    resources = (
        auth,
        projects,
        datasets,
        catalog,
        jobs,
        job_results,
        trained,
        events,
        workers,
        storage,
        operations,
    )
    for module in resources:
        app.register_api(module.blueprint)
    document.init_app(app)
