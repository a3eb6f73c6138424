"""The tables. Importing this package registers all of them."""

from webapp.models.account import AuthSession, PersonalToken, User
from webapp.models.dataset import CopyStatus, Dataset, DatasetCheck, DatasetCopy
from webapp.models.job import (
    Artifact,
    Attempt,
    Export,
    Job,
    JobEvent,
    JobStatus,
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
    "Export",
    "Job",
    "JobEvent",
    "JobStatus",
    "LoadSample",
    "Membership",
    "Metric",
    "PersonalToken",
    "Project",
    "Role",
    "StatusChange",
    "User",
]
