"""What MiniStack 1.5.33 does otherwise than AWS, put right in its own process. Imported only by `local.cloud`.

Each function here takes the place of one of MiniStack's, and says what AWS does. For each there is a scenario in
`tests/integration/test_local_gaps.py` that fails on MiniStack as it is: when a release mends one, the test says so,
and the function goes.

    ecr_store.py     what a repository holds: tags, digests, and the checks that ECR makes before it takes a manifest
    ecr_access.py    where a registry is, and its tokens
    ecr_api.py       the ECR API
    ecr_registry.py  the same registry by the distribution protocol, `/v2/`
    ecr_events.py    `ECR Image Action`, and its way to a bus in another account or region, by its policy
    ecs.py           RunTask and StopTask
    sqs.py           messages that MiniStack loses between its threads; message move tasks
    cloudwatch.py    alarms on expressions; log lines that are metrics
    iam.py           conditions in the policy simulator
    functions.py     batching windows, and what Lambda functions write, into files as well
"""

from local.spec import CloudSpec


def apply(spec: CloudSpec) -> None:
    """Correct the MiniStack that this process has imported."""
    from local.corrections import (
        cloudwatch,
        ecr_access,
        ecr_api,
        ecr_events,
        ecr_registry,
        ecs,
        functions,
        iam,
        sqs,
    )

    sqs.apply()
    ecr_events.apply()
    ecr_access.apply(spec)
    ecr_api.apply()
    ecr_registry.apply(spec)
    ecs.apply()
    iam.apply()
    cloudwatch.apply()
    functions.apply(spec)
