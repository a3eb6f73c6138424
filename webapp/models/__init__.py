"""The tables. Importing this package registers all of them."""

from webapp.models.account import AuthSession, PersonalToken, User
from webapp.models.dataset import Dataset
from webapp.models.job import Artifact, Attempt, Job, JobEvent, JobStatus, Metric, StatusChange
from webapp.models.project import Membership, Project, Role

__all__ = [
    "Artifact",
    "Attempt",
    "AuthSession",
    "Dataset",
    "Job",
    "JobEvent",
    "JobStatus",
    "Membership",
    "Metric",
    "PersonalToken",
    "Project",
    "Role",
    "StatusChange",
    "User",
]
