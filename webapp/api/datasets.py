"""/api/v1/datasets: folders below the data roots, and archives that are uploaded."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import SplitRule
from webapp.api.authentication import current_user
from webapp.api.document import multipart, problems, resource
from webapp.api.multipart import Receiver
from webapp.api.paths import CheckPath, DatasetPath
from webapp.api.requests import reads_its_body
from webapp.api.schemas.base import dump, page
from webapp.api.schemas.datasets import (
    CheckBody,
    CheckOut,
    DatasetBody,
    DatasetOut,
    DatasetPageOut,
    DatasetQuery,
    Described,
    PreviewOut,
    PreviewQuery,
    UploadForm,
    UploadQuery,
)
from webapp.config import settings
from webapp.fields import field_errors
from webapp.models import Dataset, Role
from webapp.services import checks, datasets, previews, uploads
from webapp.services.checks import Phase
from webapp.services.errors import Invalid
from webapp.services.projects import get_project, require_some_project

blueprint = resource("datasets", title="Data sets")

Answer = tuple[dict[str, Any], int]

_FORM_BYTES = 1024 * 1024  # of an upload, beside its file


@blueprint.get("", responses={200: DatasetPageOut})
def list(query: DatasetQuery) -> Answer:
    """List data sets, the newest first"""
    found = datasets.list_datasets(
        current_user(), project_id=query.project_id, limit=query.limit, cursor=query.cursor
    )
    return page(DatasetOut, found), 200


@blueprint.post("", responses={201: DatasetOut, **problems(403, 404, 409)})
def create(body: DatasetBody) -> Answer:
    """Register a folder; every file of it is looked at first"""
    project = get_project(body.project_id, user=current_user(), needed=Role.EDITOR)
    check = checks.start(body.check_id, user=current_user(), phase=Phase.CHECKING)
    try:
        dataset = datasets.register(project, path=body.path, check=check, **_described(body))
    finally:
        check.end()
    return dump(DatasetOut, dataset), 201


@blueprint.post(
    "/upload",
    request_body=multipart(
        UploadForm, file="A zip of the data set, with or without a folder around it"
    ),
    responses={201: DatasetOut, **problems(403, 404, 409)},
)
@reads_its_body
def upload(query: UploadQuery) -> Answer:
    """Upload a data set as a zip; it is unpacked, and every file of it is looked at

    Give `project_id` in the address, or before the file, so that nothing is sent in vain.
    """
    _check_editor(query.project_id)
    with uploads.new_place() as place:
        reading = _Reading(query.project_id)
        receiver = Receiver(
            file_field="file",
            into=place.archive,
            most_bytes=settings().upload_bytes + _FORM_BYTES,
            before_file=reading.before_file,
            progress=reading.progress,
        )
        try:
            project_id, form = reading.end(receiver.run())
            dataset = datasets.register_upload(
                project_id, place, check=reading.check, **_described(form)
            )
        finally:
            reading.check.end()
    return dump(DatasetOut, dataset), 201


@blueprint.get("/<id:dataset_id>", responses={200: DatasetOut})
def get(path: DatasetPath) -> Answer:
    """Get a data set"""
    return dump(DatasetOut, _fetch(path, Role.VIEWER)), 200


@blueprint.get("/<id:dataset_id>/preview", responses={200: PreviewOut})
def preview(path: DatasetPath, query: PreviewQuery) -> Answer:
    """Get small pictures of a split with what its annotations say"""
    dataset = _fetch(path, Role.VIEWER)
    items = previews.preview(dataset, split=query.split, limit=query.limit)
    return dump(PreviewOut, {"split": query.split, "items": items}), 200


@blueprint.post("/<id:dataset_id>/validate", responses={200: DatasetOut, **problems(403, 409)})
def validate(path: DatasetPath, body: CheckBody) -> Answer:
    """Look at a data set again"""
    dataset = _fetch(path, Role.EDITOR)
    check = checks.start(body.check_id, user=current_user(), phase=Phase.CHECKING)
    try:
        datasets.look_again(dataset, check=check)
    finally:
        check.end()
    return dump(DatasetOut, _fetch(path, Role.EDITOR)), 200


@blueprint.delete("/<id:dataset_id>", responses={204: None, **problems(403, 409)})
def delete(path: DatasetPath) -> tuple[str, int]:
    """Forget a data set; the files of an uploaded one are deleted, others stay"""
    datasets.remove(_fetch(path, Role.EDITOR))
    return "", 204


@blueprint.get("/checks/<check_id>", responses={200: CheckOut})
def get_check(path: CheckPath) -> Answer:
    """Get how far a look at a data set is, by the id that you chose for it"""
    return dump(CheckOut, checks.find(path.check_id, user=current_user())), 200


@blueprint.delete("/checks/<check_id>", responses={204: None})
def delete_check(path: CheckPath) -> tuple[str, int]:
    """Give up a look at a data set; nothing is registered, and what was uploaded is removed"""
    checks.give_up(path.check_id, user=current_user())
    return "", 204


class _Reading:
    """What is known of an upload while it arrives: refused as soon as it can be."""

    def __init__(self, project_id: int | None) -> None:
        self._project_id = project_id
        self.check = checks.NOBODY_WAITS

    def before_file(self, fields: dict[str, str]) -> None:
        """Look at the fields that came before the file. Raises what the whole form would."""
        form = self._parse(fields, partly=True)
        if form.project_id is not None:
            _check_editor(form.project_id)
        self.check = checks.start(form.check_id, user=current_user(), phase=Phase.RECEIVING)

    def progress(self, received: int, total: int | None) -> None:
        self.check(received, total)

    def end(self, fields: dict[str, str]) -> tuple[int, UploadForm]:
        """Return the project and the form. Raises Invalid, NotFound and Forbidden."""
        form = self._parse(fields, partly=False)
        if form.project_id is None:
            raise Invalid({"project_id": ["This field is required"]})
        _check_editor(form.project_id)  # also where a role was taken away meanwhile
        return form.project_id, form

    def _parse(self, fields: dict[str, str], *, partly: bool) -> UploadForm:
        given = {name: text for name, text in fields.items() if text != ""}
        asked = str(self._project_id or given.get("project_id", ""))
        if asked and given.setdefault("project_id", asked) != asked:
            raise Invalid({"project_id": ["The address says another"]})
        if partly:
            given.setdefault("name", "not sent yet")
        try:
            return UploadForm.model_validate(given)
        except ValidationError as error:
            raise Invalid(field_errors(error)) from None


def _check_editor(project_id: int | None) -> None:
    if project_id is None:
        require_some_project(current_user(), needed=Role.EDITOR)
    else:
        get_project(project_id, user=current_user(), needed=Role.EDITOR)


def _described(said: Described) -> dict[str, Any]:
    """Return what is said of a data set as the services take it."""
    return {
        "name": said.name,
        "format": DatasetFormat(said.format) if said.format else None,
        "task_type": TaskType(said.task_type) if said.task_type else None,
        "split_rule": SplitRule(seed=said.split_seed, val_share=said.val_share),
    }


def _fetch(path: DatasetPath, needed: Role) -> Dataset:
    return datasets.get_dataset(path.dataset_id, user=current_user(), needed=needed)
