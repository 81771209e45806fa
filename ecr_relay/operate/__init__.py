"""The operator's job: look into a deployed relay, and tell it what to do. What `ecr_relay.cli` prints is made here.

    deployment.py      a stack by its name -> its queues, ledger, functions and configuration
    failures.py        what went wrong, in a sentence for an operator
    deadletters.py     list and show                     mailbox.py   looking into a queue without changing it
    redrive.py         redrive and purge                 letters.py   which are meant, and which belong together
    depths.py          how deep a queue is               doctor/      what a deployment lacks
    status.py images.py sync.py explain.py wait.py verify.py order.py log.py pause.py
    configuration.py

Every function takes a `Deployment` and plain values, and returns a model whose JSON is what `--json` prints.
"""
