"""The Celery application: one task, a doorbell.

A message names a step, but what is run is the best step that this worker can claim; so a lost message costs time and a
doubled one costs nothing. The queue a message came by decides the role: `control` proposes and decides, `inspect` reads
checkpoints, `cpu` and `cuda` drive a runner. This process imports neither torch nor Optuna; control steps import the
search room when they run.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_ready, worker_shutting_down

from core.settings import Settings
from workers.lifetime import die_with_parent
from workers.processes import Process
from workers.stopping import DRAINING

STEP_TASK = "huarizo.step"


def make_app(settings: Settings) -> Celery:
    """The application with the settings that the doorbell needs."""
    application = Celery("huarizo", broker=settings.broker_url, set_as_current=True)
    application.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        result_backend=None,
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=settings.drain_seconds,
        worker_hijack_root_logger=False,
        broker_transport_options={
            "visibility_timeout": 86400,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "health_check_interval": 10,
            "retry_on_timeout": True,
        },
    )
    return application


app = make_app(Settings())


@app.task(name=STEP_TASK, bind=True)  # type: ignore[untyped-decorator]
def step(self: Any, kind: str, step_id: str) -> None:
    """Answer the bell: run what is best to run now on this queue."""
    queue = str((self.request.delivery_info or {}).get("routing_key") or "control")
    Process.current().answer(queue)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _start_child(**_: Any) -> None:
    die_with_parent()
    Process.begin(Settings())


@worker_ready.connect  # type: ignore[untyped-decorator]
def _start_reconciler(sender: Any, **_: Any) -> None:
    from workers.reconciler import start_reconciler

    if "control" in {queue.name for queue in sender.task_consumer.queues}:
        start_reconciler(Settings())


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    from workers.reconciler import stop_reconciler

    DRAINING.set()
    stop_reconciler()
