"""Your own logging: these hooks take the place of the built-in plugin `logs`."""

import logging

from worchflow_core import hookimpl

logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.INFO)
log = logging.getLogger("acme")


@hookimpl
def worchflow_execution_started(execution):
    log.info("%s %s started", execution.function, execution.id)


@hookimpl
def worchflow_step_completed(execution, step):
    log.info("%s %s did %r", execution.function, execution.id, step.title)


@hookimpl
def worchflow_execution_failed(execution, failure):
    log.error("%s %s failed: %s", execution.function, execution.id, failure.message)
