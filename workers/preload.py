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
