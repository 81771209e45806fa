"""Looking into a queue: everything once, and nothing changed, whatever happens meanwhile."""

from typing import TYPE_CHECKING, Any

import boto3
import pytest

from ecr_relay.operate import mailbox
from tests.unit.conftest import REGION

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> tuple["SQSClient", str]:
    monkeypatch.setattr(mailbox, "WAIT_S", 0)
    client = boto3.client("sqs", region_name=REGION)
    url = client.create_queue(QueueName="dead")["QueueUrl"]
    for number in range(12):
        client.send_message(QueueUrl=url, MessageBody=f"letter {number}")
    return client, url


def visible(client: "SQSClient", url: str) -> int:
    name: Any = "ApproximateNumberOfMessages"
    return int(client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def test_all_are_held_while_they_are_looked_at_and_given_back_after(queue: tuple["SQSClient", str]) -> None:
    client, url = queue
    with mailbox.opened(client, url) as box:
        box.fetch(mailbox.ALL)
        assert {letter.body for letter in box.letters} == {f"letter {number}" for number in range(12)}
        assert visible(client, url) == 0
    assert visible(client, url) == 12


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_an_interrupt_gives_them_back(queue: tuple["SQSClient", str], error: type[BaseException]) -> None:
    client, url = queue

    def look() -> None:
        with mailbox.opened(client, url) as box:
            box.fetch(mailbox.ALL)
            raise error

    with pytest.raises(error):
        look()
    assert visible(client, url) == 12


def test_what_a_failed_look_had_received_is_given_back(
    queue: tuple["SQSClient", str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, url = queue
    receive = mailbox.Mailbox._receive
    calls = iter((None, RuntimeError("the network is gone")))

    def failing(self: mailbox.Mailbox, wait: int) -> Any:
        error = next(calls)
        if error is not None:
            raise error
        return receive(self, wait)

    monkeypatch.setattr(mailbox.Mailbox, "_receive", failing)

    def look() -> None:
        with mailbox.opened(client, url) as box:
            box.fetch(mailbox.ALL)

    with pytest.raises(RuntimeError, match="network"):
        look()
    assert visible(client, url) == 12


def test_one_that_comes_twice_is_counted_once(queue: tuple["SQSClient", str], monkeypatch: pytest.MonkeyPatch) -> None:
    client, url = queue
    monkeypatch.setattr(mailbox, "HOLD_S", 0)  # visible again at once: every receive sees the same ones
    with mailbox.opened(client, url) as box:
        box.fetch(mailbox.ALL)
        assert len(box.letters) == len({letter.id for letter in box.letters})


def test_it_stops_at_a_limit_and_when_it_has_seen_enough(queue: tuple["SQSClient", str]) -> None:
    client, url = queue
    with mailbox.opened(client, url) as box:
        box.fetch(5)
        assert len(box.letters) == 10
    with mailbox.opened(client, url) as box:
        box.fetch(mailbox.ALL, lambda letter: letter.body == "letter 0")
        assert "letter 0" in {letter.body for letter in box.letters}
    assert visible(client, url) == 12


def test_what_is_deleted_does_not_come_back(queue: tuple["SQSClient", str]) -> None:
    client, url = queue
    with mailbox.opened(client, url) as box:
        box.fetch(mailbox.ALL)
        assert box.delete(box.letters[:11]) == 11
        assert len(box.letters) == 1
    assert visible(client, url) == 1


def test_receipt_handles_are_in_no_repr(queue: tuple["SQSClient", str]) -> None:
    client, url = queue
    with mailbox.opened(client, url) as box:
        box.fetch(1)
        assert box.letters[0].receipt_handle not in repr(box.letters[0])


def test_nobody_asks_for_what_others_already_bring(
    queue: tuple["SQSClient", str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, url = queue
    for number in range(12, 100):
        client.send_message(QueueUrl=url, MessageBody=f"letter {number}")
    monkeypatch.setattr(mailbox, "WAIT_S", 1)
    receive = mailbox.Mailbox._receive
    waits: list[int] = []

    def noted(self: mailbox.Mailbox, wait: int) -> Any:
        found = receive(self, 0)
        if not found:
            waits.append(wait)
        return found

    monkeypatch.setattr(mailbox.Mailbox, "_receive", noted)
    with mailbox.opened(client, url) as box:
        box.fetch(mailbox.ALL)
        assert len(box.letters) == 100
    assert waits == [0]  # one glance at the end, and no long wait for nothing
