"""What was measured, by Powertools, in CloudWatch's embedded metric format."""

from aws_lambda_powertools.metrics import EphemeralMetrics

from ecr_relay.metrics import DESTINATION, NAMESPACE, STACK, Measured, unit


def publish(measured: Measured, stack: str) -> None:
    """A line for what has no destination, and one for each destination, which counts for the stack as well.

    A batch has ten messages, so no line comes near the hundred values of one metric that the format takes.
    """
    for destination, samples in measured.rows():
        metrics = EphemeralMetrics(namespace=NAMESPACE)
        metrics.add_dimension(STACK, stack)
        if destination:
            metrics.add_dimensions(**{STACK: stack, DESTINATION: destination})
        metrics.add_metadata("message", "measured")  # every line of a log has one
        for name, values in samples.items():
            for value in values:
                metrics.add_metric(name, unit(name), value)
        metrics.flush_metrics()
