"""What the engine has to tell of each request, to whom, and when: streams at once, the rest when there is an occasion.

Who waits for the whole text gains nothing from a message a token, and on a CPU the two processes share their cores:
each message wakes the other one in the middle of a step. Plain Python, called by `process.py`.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from zeroshot.engine.messages import Generate
from zeroshot.types import TokenOutput, join


@dataclass(slots=True)
class _Recipient:
    client_id: bytes
    is_patient: bool
    begun: set[int] = field(default_factory=set)  # choices whose first token has been sent


class Outbox:
    """`put` a step's outputs, then `take` those that are due, by client.

    A patient request's choice is due with its first token, which ends the wait that `time_to_first_token` measures,
    with its last, and whenever everything is taken. What it got in between is one output.
    """

    def __init__(self) -> None:
        self._recipients: dict[str, _Recipient] = {}
        self._held: dict[tuple[str, int], TokenOutput] = {}

    def __len__(self) -> int:
        """Requests of which outputs may come."""
        return len(self._recipients)

    def expect(self, command: Generate) -> None:
        """Outputs of this request may come."""
        self._recipients[command.request.request_id] = _Recipient(command.client_id, command.is_patient)

    def forget(self, request_id: str) -> None:
        """None will come, and those held are for nobody. Unknown requests are ignored."""
        self._recipients.pop(request_id, None)
        for key in [key for key in self._held if key[0] == request_id]:
            del self._held[key]

    def put(self, outputs: list[TokenOutput]) -> None:
        for output in outputs:
            key = (output.request_id, output.choice_index)
            if key in self._held:
                join(self._held[key], output)
            else:
                self._held[key] = output

    def take(self, *, everything: bool) -> dict[bytes, list[TokenOutput]]:
        """Client id -> its outputs, in the order in which they came."""
        due: dict[bytes, list[TokenOutput]] = defaultdict(list)
        for key, output in list(self._held.items()):
            recipient = self._recipients[output.request_id]
            if everything or _is_due(output, recipient):
                if output.token_ids:
                    recipient.begun.add(output.choice_index)
                due[recipient.client_id].append(self._held.pop(key))
        return due


def _is_due(output: TokenOutput, recipient: _Recipient) -> bool:
    return (
        not recipient.is_patient
        or output.finish_reason is not None
        or (bool(output.token_ids) and output.choice_index not in recipient.begun)
    )
