"""CloudFormation, where it refuses an alarm that AWS takes."""

import functools
from collections.abc import Callable
from typing import Any, Final

from ministack.services.cloudformation import provisioners

Properties = dict[str, Any]

MATH: Final = "(metric math)"
"""A metric that nobody writes, so that such an alarm is there to be looked at, and never goes off."""


def taken(record: Callable[[str, Properties], Properties]) -> Callable[[str, Properties], Properties]:
    """AWS: an alarm on an expression over several metrics; MiniStack evaluates none, and refuses the template."""

    @functools.wraps(record)
    def alarm(name: str, properties: Properties) -> Properties:
        if not properties.get("Metrics"):
            return record(name, properties)
        single = {key: value for key, value in properties.items() if key != "Metrics"}
        return record(name, single | {"MetricName": MATH, "Namespace": MATH})

    return alarm


def apply() -> None:
    provisioners._cw_metric_alarm_record = taken(provisioners._cw_metric_alarm_record)
