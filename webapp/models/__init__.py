"""The tables. Importing this package registers all of them."""

from webapp.models.account import AuthSession, PersonalToken, User
from webapp.models.dataset import CopyStatus, Dataset, DatasetCheck, DatasetCopy
from webapp.models.disk import DiskMeasure
from webapp.models.job import (
    Artifact,
    Attempt,
    DeletedJob,
    Export,
    Job,
    JobEvent,
    JobStatus,
    LastCheckpoint,
    LoadSample,
    Metric,
    StatusChange,
)
from webapp.models.project import Membership, Project, Role

__all__ = [
    "Artifact",
    "Attempt",
    "AuthSession",
    "CopyStatus",
    "Dataset",
    "DatasetCheck",
    "DatasetCopy",
    "DeletedJob",
    "DiskMeasure",
    "Export",
    "Job",
    "JobEvent",
    "JobStatus",
    "LastCheckpoint",
    "LoadSample",
    "Membership",
    "Metric",
    "PersonalToken",
    "Project",
    "Role",
    "StatusChange",
    "User",
]
