"""Imported first by the warm template, and by nothing else.

The template would notice the end of its worker only when it has imported the frameworks; here
the kernel is asked to end it at once, and its children with it.
"""

import os

from modelyard.process import die_with_parent

die_with_parent(os.getppid())
# A GPU's number is nvidia-smi's: CUDA itself counts by speed, and only those that are visible.
os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
# Training needs no way to anything else of the team, and a library may print what it finds here.
for secret in (
    "REDIS_URL",
    "DATABASE_URL",
    "MODELYARD_SECRET_KEY",
    "MODELYARD_ADMIN_PASSWORD",
    "MODELYARD_FLOWER_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
):
    os.environ.pop(secret, None)
