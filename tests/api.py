"""People who call the API of an application in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from adapters.data.describe import describe
from modelyard.settings import load_settings
from webapp import create_app
from webapp.extensions import db
from webapp.models import Dataset, User
from webapp.services import accounts, auth, datasets

PASSWORD = "correct horse battery"
JOB: dict[str, Any] = {
    "framework": "timm",
    "model_name": "resnet18",
    "task_type": "image_classification",
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 0.01,
}


class Person:
    """Somebody with an account, or (without a token) nobody in particular."""

    def __init__(self, app: Flask, *, user_id: int = 0, email: str = "", token: str = "") -> None:
        self.app = app
        self.id = user_id
        self.email = email
        self.token = token
        self.owns: dict[str, int] = {}  # whatever a test wants to remember

    def call(self, method: str, path: str, **request: Any) -> TestResponse:
        headers = dict(request.pop("headers", {}))
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        address = path if path.startswith("/api") else f"/api/v1{path}"
        # A client a call: no cookie is carried over.
        return self.app.test_client().open(address, method=method, headers=headers, **request)

    def get(self, path: str, **query: Any) -> TestResponse:
        return self.call("GET", path, query_string=query)

    def post(self, path: str, body: Any = None, **request: Any) -> TestResponse:
        return self.call("POST", path, json={} if body is None else body, **request)

    def patch(self, path: str, body: Any) -> TestResponse:
        return self.call("PATCH", path, json=body)

    def delete(self, path: str) -> TestResponse:
        return self.call("DELETE", path)

    def project(self, name: str = "digits") -> int:
        return int(self.post("/projects", {"name": name}).json["id"])

    def job(self, project_id: int, dataset_id: int, **fields: Any) -> dict[str, Any]:
        body = {**JOB, "project_id": project_id, "dataset_id": dataset_id, **fields}
        answer = self.post("/training/jobs", body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json
        return made


class Api:
    """An application with its tables made, a data root, and people."""

    def __init__(self, app: Flask, home: Path) -> None:
        self.app = app
        self.data = home / "data"
        self.nobody = Person(app)

    def person(self, name: str, *, admin: bool = False) -> Person:
        """Return a new person who is logged in."""
        email = f"{name}@example.org"
        with self.app.app_context():
            user = User(email=email, name=name, password_hash="none", is_admin=admin)
            db.session.add(user)
            db.session.commit()
            token = auth.open_session(user).access_token
            return Person(self.app, user_id=user.id, email=email, token=token)

    def person_with_password(self, name: str) -> Person:
        """Return a new person who can log in; hashing the password takes a while."""
        email = f"{name}@example.org"
        with self.app.app_context():
            user = accounts.create_user(email=email, password=PASSWORD, name=name)
            token = auth.open_session(user).access_token
            return Person(self.app, user_id=user.id, email=email, token=token)

    def image_folder(self, name: str = "shades") -> Path:
        """Return a small image folder below the data root."""
        folder = self.data / name
        for split, count, step in (("train", 4, 0), ("val", 2, 10)):
            for label, shade in (("dark", 20 + step), ("light", 230 + step)):
                place = folder / split / label
                place.mkdir(parents=True)
                for number in range(count):
                    Image.new("RGB", (24, 24), (shade + number,) * 3).save(place / f"{number}.png")
        return folder

    def dataset(self, project_id: int, name: str = "shades") -> int:
        """Return a data set as a call of the API would register it, without its process."""
        description = describe(self.image_folder(name))
        with self.app.app_context():
            dataset = Dataset(project_id=project_id, name=name, path=str(description.path))
            datasets.fill(dataset, description)
            db.session.add(dataset)
            db.session.commit()
            return dataset.id


@contextmanager
def serve(home: Path, *, config: dict[str, Any] | None = None, **environ: str) -> Iterator[Api]:
    """Give the API of an application whose home is a folder of the test's own."""
    environ = {"MODELYARD_HOME": str(home), "TRAINING_EXECUTION_MODE": "subprocess", **environ}
    app = create_app(load_settings(environ), **(config or {}))
    (home / "data").mkdir(parents=True, exist_ok=True)
    with app.app_context():
        db.create_all()
    yield Api(app, home)
    with app.app_context():
        db.session.remove()
        db.engine.dispose()
