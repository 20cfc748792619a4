"""What people see: tables and progress bars. What programs read (`--json`) goes another way."""

from __future__ import annotations

from app.terminal.account import audit_table, keys_table, tenants_table
from app.terminal.catalogue import (
    candidates_table,
    devices_table,
    probes_table,
    recipes_table,
    timings_table,
)
from app.terminal.cells import distance, plain
from app.terminal.console import err, out, picture
from app.terminal.estimates import estimates_table, plan_report, scores_table
from app.terminal.estimator import estimator_report, evaluation_report
from app.terminal.finetunes import finetune_report, finetunes_table, prediction_report
from app.terminal.outcomes import import_report, outcomes_table
from app.terminal.progress import phases, progress_bars, show_progress, tell_phases, upload_bar
from app.terminal.tasks import (
    atlas_report,
    distances_table,
    embedding_facts,
    intake_report,
    job_facts,
    jobs_table,
    neighbours_table,
    skipped_files,
    task_facts,
    tasks_table,
)
from app.terminal.upkeep import (
    backup_made,
    backup_restored,
    backups_table,
    check_report,
    config_table,
    move_begun,
    moves,
)

__all__ = [
    "atlas_report",
    "audit_table",
    "backup_made",
    "backup_restored",
    "backups_table",
    "candidates_table",
    "check_report",
    "config_table",
    "devices_table",
    "distance",
    "distances_table",
    "embedding_facts",
    "err",
    "estimates_table",
    "estimator_report",
    "evaluation_report",
    "finetune_report",
    "finetunes_table",
    "import_report",
    "intake_report",
    "job_facts",
    "jobs_table",
    "keys_table",
    "move_begun",
    "moves",
    "neighbours_table",
    "out",
    "outcomes_table",
    "phases",
    "picture",
    "plain",
    "plan_report",
    "prediction_report",
    "probes_table",
    "progress_bars",
    "recipes_table",
    "scores_table",
    "show_progress",
    "skipped_files",
    "task_facts",
    "tasks_table",
    "tell_phases",
    "tenants_table",
    "timings_table",
    "upload_bar",
]
