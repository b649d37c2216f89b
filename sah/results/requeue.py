"""Which start of which SLURM job began the answers of a directory, for resume=false.

A requeued job starts with the same command. It resumes what its own earlier start began, and
computes again what was complete before the job.
"""

import os
from pathlib import Path

from sah.errors import DamagedResults
from sah.results.claim import is_earlier_start_of_this_job
from sah.results.files import read_json, write_json

BEGUN_BY = ".begun_by"


def began_before_requeue(directory: Path) -> bool:
    """Whether an earlier start of this job, with resume=false too, began this directory's files."""
    try:
        return is_earlier_start_of_this_job(read_json(directory / BEGUN_BY))
    except (FileNotFoundError, DamagedResults):
        return False


def note_job(directory: Path) -> None:
    """Note that this start of this job began the files, or resumed them; nothing without SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is not None:
        start = {"job": job, "restart": os.environ.get("SLURM_RESTART_COUNT", "0")}
        write_json(directory / BEGUN_BY, start)
