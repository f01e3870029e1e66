"""Celery tasks that audit: celery -A celery_app worker --pool prefork.

Where the journal is and where its records go is said by the environment: OTEL_AUDIT_JOURNAL, OTEL_AUDIT_DESTINATIONS.
The broker of this example is a directory, BROKER_DIRECTORY.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

import otel_audit

otel_audit.configure(service_name="jobs")  # in the main process; the children that it forks go on with it
audit = otel_audit.get_audit_logger(__name__)

app = Celery("celery_app", broker="filesystem://")
directory = os.environ.get("BROKER_DIRECTORY", "/var/lib/jobs/queue")
app.conf.broker_transport_options = {"data_folder_in": directory, "data_folder_out": directory}
app.conf.task_acks_late = True  # a task whose child was killed runs again, and audits again
app.conf.worker_max_tasks_per_child = 1000


@app.task
def charge(invoice: int, receipts: str) -> None:
    """Audit what was done, and note the record's id in a file."""
    receipt = audit.emit("invoice.charge", actor="jobs", outcome="success", target=f"invoice:{invoice}")
    with Path(receipts).open("a") as file:
        file.write(f"{receipt.record_id}\n")
