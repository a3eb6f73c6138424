"""Data sets: registered by their folder, looked at, and looked at again."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from adapters.contract import DatasetFormat, TaskType
from adapters.data.apart import describe_apart
from adapters.data.content import SplitRule
from adapters.data.description import DatasetError, Description, Severity
from adapters.data.roots import printable, resolve_inside
from adapters.data.unpack import Limits
from adapters.data.unpack_apart import unpack_apart
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Dataset, Job, JobStatus, Project, Role, User
from webapp.models.columns import utc_now
from webapp.services import dataset_copies, uploads
from webapp.services.checks import NOBODY_WAITS, Check, Phase
from webapp.services.deletion import ACTIVE
from webapp.services.errors import Conflict, Forbidden, Invalid, NotFound
from webapp.services.paging import Page, SortKey, paginate
from webapp.services.projects import role_in, visible_to
from webapp.services.statements import affected
from webapp.services.uploads import Place

DEFAULT_RULE = SplitRule()
PROBLEMS_TOLD = 5  # of an invalid data set, in the refusal of a job

# Each look keeps a core or two busy: more at once would only slow each other down.
_looking = threading.BoundedSemaphore(2)


def get_dataset(dataset_id: int, *, user: User, needed: Role = Role.VIEWER) -> Dataset:
    """Return a data set. Raises NotFound or, for a member who lacks the role, Forbidden."""
    dataset = db.session.get(Dataset, dataset_id)
    role = role_in(dataset.project_id, user=user) if dataset is not None else None
    if dataset is None or role is None:
        raise NotFound(f"There is no data set {dataset_id}")
    if not role.allows(needed):
        raise Forbidden(
            f"You are {role} of project {dataset.project_id}; this needs the role {needed}"
        )
    return dataset


def list_datasets(
    user: User, *, project_id: int | None, limit: int, cursor: str | None
) -> Page[Dataset]:
    """Return the data sets that a person may see, the newest first."""
    query = select(Dataset).where(visible_to(user, Dataset.project_id))
    if project_id is not None:
        query = query.where(Dataset.project_id == project_id)
    keys = [SortKey(Dataset.id, descending=True)]
    return paginate(db.session(), query, keys=keys, limit=limit, cursor=cursor)


def jobs_of(dataset: Dataset, *, limit: int) -> list[Job]:
    """Return the jobs on a data set, the newest first."""
    query = select(Job).where(Job.dataset_id == dataset.id, Job.deleted_at.is_(None))
    return list(db.session.scalars(query.order_by(Job.id.desc()).limit(limit)))


def register(
    project: Project,
    *,
    name: str,
    path: str,
    format: DatasetFormat | None = None,
    task_type: TaskType | None = None,
    split_rule: SplitRule = DEFAULT_RULE,
    check: Check = NOBODY_WAITS,
) -> Dataset:
    """Look at a folder and register it, also where it has problems.

    Raises Invalid, with nothing registered, where it lies outside the data roots or cannot be
    read as a data set.
    """
    project_id = project.id
    description = look(path, format=format, task_type=task_type, split_rule=split_rule, check=check)
    return _keep(description, project_id=project_id, name=name, split_rule=split_rule)


def register_upload(
    project_id: int,
    place: Place,
    *,
    name: str,
    format: DatasetFormat | None,
    task_type: TaskType | None,
    split_rule: SplitRule,
    check: Check,
) -> Dataset:
    """Unpack the archive at a place, look at it, and register it, also where it has problems.

    Raises Invalid, with nothing registered, where it cannot be unpacked or read as a data set.
    """
    check.begin(Phase.UNPACKING)
    db.session.rollback()  # hold no connection meanwhile
    try:
        path = unpack_apart(
            place.archive, place.content, limits=_limits(), progress=check, held=(place.lock,)
        )
        place.archive.unlink()
        found = _describe(path, format, task_type, split_rule=split_rule, check=check)
    except DatasetError as error:
        raise Invalid({"file": [str(error)]}) from None
    described = dataclasses.replace(found, path=path)
    return _keep(described, project_id=project_id, name=name, split_rule=split_rule, uploaded=True)


def look_again(dataset: Dataset, *, check: Check = NOBODY_WAITS) -> None:
    """Bring what is known of a data set up to date. Raises Invalid where it cannot be read."""
    dataset_id = dataset.id
    description = look(
        dataset.path,
        format=DatasetFormat(dataset.format),
        task_type=TaskType(dataset.task_type),
        split_rule=SplitRule(seed=dataset.split_seed, val_share=dataset.val_share),
        check=check,
        uploaded=dataset.uploaded,
    )
    found = db.session.get(Dataset, dataset_id)
    if found is None:
        raise NotFound(f"Data set {dataset_id} was deleted meanwhile")
    fill(found, description)
    found.checked_at = utc_now()
    db.session.commit()
    dataset_copies.want(found)


def remove(dataset: Dataset) -> None:
    """Forget a data set, and delete the files of an uploaded one; others' stay.

    Raises Conflict while a job under way uses it, or one that could not be started without.
    """
    dataset_id = dataset.id
    under_way = (*ACTIVE, JobStatus.PENDING) if dataset.uploaded else ACTIVE
    users = select(Job.id).where(
        Job.dataset_id == dataset_id, Job.status.in_(under_way), Job.deleted_at.is_(None)
    )
    with uploads.leaving([dataset]):
        db.session.execute(select(Job.id).where(Job.dataset_id == dataset_id).with_for_update())
        if affected(delete(Dataset).where(Dataset.id == dataset_id, ~users.exists())) != 1:
            db.session.rollback()
            names = " or ".join(under_way)
            raise Conflict(f"Data set {dataset_id} is used by jobs that are {names}")
        db.session.commit()


def look(
    path: str,
    *,
    format: DatasetFormat | None,
    task_type: TaskType | None,
    split_rule: SplitRule = DEFAULT_RULE,
    check: Check = NOBODY_WAITS,
    field: str = "path",
    uploaded: bool = False,
) -> Description:
    """Describe what lies at a path below the data roots; takes as long as its files are many.

    What was uploaded is nobody's but its project's, and is not looked at by its path. Raises
    Invalid, naming ``field``, where nothing can be read there.
    """
    roots = (uploads.uploads_folder(),) if uploaded else settings().data_roots
    db.session.rollback()  # hold no connection meanwhile
    try:
        real = resolve_inside(path, roots)
        if not uploaded and uploads.holds(real):
            raise DatasetError(
                f"'{printable(path)}' lies in or around the folder of uploads; name another"
            )
        found = _describe(real, format, task_type, split_rule=split_rule, check=check)
    except DatasetError as error:
        raise Invalid({field: [str(error)]}) from None
    return dataclasses.replace(found, path=real)  # as it was named: a folder, or its data.yaml


def _describe(
    path: Path,
    format: DatasetFormat | None,
    task_type: TaskType | None,
    *,
    split_rule: SplitRule,
    check: Check,
) -> Description:
    check.begin(Phase.CHECKING)
    with _looking:
        return describe_apart(
            path, format=format, task_type=task_type, split_rule=split_rule, progress=check
        )


def _limits() -> Limits:
    found = settings()
    return Limits(
        total_bytes=found.upload_unpacked_bytes,
        ratio=found.upload_ratio,
        files=found.upload_files,
        keep_free_bytes=uploads.KEEP_FREE_BYTES,
    )


def _keep(
    description: Description,
    *,
    project_id: int,
    name: str,
    split_rule: SplitRule,
    uploaded: bool = False,
) -> Dataset:
    """Store a new data set. Raises NotFound where its project was deleted meanwhile."""
    dataset = Dataset(
        project_id=project_id,
        name=name,
        path=str(description.path),
        split_seed=split_rule.seed,
        val_share=split_rule.val_share,
        uploaded=uploaded,
    )
    fill(dataset, description)
    db.session.add(dataset)
    try:
        db.session.flush()
        # Shared with others that register here: each has the project's key already, by its row,
        # and none could have it alone before the other ended.
        there = db.session.scalar(
            select(Project.id)
            .where(Project.id == project_id, Project.deleted_at.is_(None))
            .with_for_update(read=True)
        )
    except IntegrityError:
        there = None
    if there is None:
        db.session.rollback()
        raise NotFound(f"Project {project_id} was deleted meanwhile")
    db.session.commit()
    dataset_copies.want(dataset)
    return dataset


def first_problems(problems: list[dict[str, Any]]) -> list[str]:
    """Return the first errors of a data set, each with its file and line."""
    errors = [problem for problem in problems if problem["severity"] == Severity.ERROR]
    return [_sentence(problem) for problem in errors[:PROBLEMS_TOLD]]


def _sentence(problem: dict[str, Any]) -> str:
    place = problem["file"] or ""
    if place and problem["line"] is not None:
        place += f":{problem['line']}"
    message: str = problem["message"]
    return f"{place}: {message}" if place else message


def fill(dataset: Dataset, description: Description) -> None:
    """Write what a look found into a data set's row."""
    dataset.format = str(description.format)
    dataset.task_type = str(description.task_type)
    dataset.task_types = [str(task) for task in description.task_types]
    dataset.multi_label = description.multi_label
    dataset.split_rule = description.split_rule
    dataset.keypoints = dataclasses.asdict(description.keypoints) if description.keypoints else None
    dataset.num_images = description.num_images
    dataset.classes = list(description.classes)
    dataset.splits = dict(description.splits)
    dataset.status = "valid" if description.valid else "invalid"
    dataset.problems = [problem.to_json() for problem in description.problems]
    dataset.fingerprint = description.fingerprint
    dataset.statistics = description.statistics
