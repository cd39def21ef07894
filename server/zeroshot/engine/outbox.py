"""Decides when a request's outputs are sent: a stream's soon, those of a whole text when there is an occasion.

A caller that waits for the whole text gains nothing from a message per token, and on a CPU the two processes share
their cores: each message wakes the other process in the middle of a step. Where there are many streams, each can wait
for a few milliseconds; otherwise HTTP would send fewer tokens a second than the engine makes. Plain Python, called by
`process.py`.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from zeroshot.engine.messages import Generate
from zeroshot.types import TokenOutput, join

CROWD = 9
"""From this many requests on, a stream's tokens may be sent together."""
MOST_HELD = 8
"""Tokens of a choice: when this many are held, they are sent."""
LONGEST_HELD_S = 0.010
"""Since a stream was last sent something. Nobody sees so short a wait, and if a step takes longer nothing is held."""


@dataclass(slots=True)
class _Recipient:
    client_id: bytes
    is_patient: bool
    sent_at: dict[int, float] = field(default_factory=dict)  # choice -> when its newest tokens so far were sent


class Outbox:
    """`put` a step's outputs, then `take` those that are due, by client.

    A choice's first token is due at once, which ends the wait that `time_to_first_token` measures, and so is its last.
    Those in between are held for a patient request until everything is taken, and for a stream in a crowd until they
    are a few, or a few milliseconds old. What was held goes out as one output.
    """

    def __init__(self) -> None:
        self._recipients: dict[str, _Recipient] = {}
        self._held: dict[tuple[str, int], TokenOutput] = {}

    def __len__(self) -> int:
        """Requests whose outputs may still come."""
        return len(self._recipients)

    def expect(self, command: Generate) -> None:
        """Outputs of this request may come."""
        self._recipients[command.request.request_id] = _Recipient(command.client_id, command.is_patient)

    def forget(self, request_id: str) -> None:
        """No more outputs will come, and those held are dropped. Unknown requests are ignored."""
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

    def take(self, now: float, *, everything: bool) -> dict[bytes, list[TokenOutput]]:
        """Client id -> its outputs, in the order in which they came. now: in seconds, of a clock that never goes back.

        everything: also what could be held for longer.
        """
        due: dict[bytes, list[TokenOutput]] = defaultdict(list)
        for key, output in list(self._held.items()):
            recipient = self._recipients[output.request_id]
            if everything or self._is_due(output, recipient, now):
                if output.token_ids:
                    recipient.sent_at[output.choice_index] = now
                due[recipient.client_id].append(self._held.pop(key))
        return due

    def _is_due(self, output: TokenOutput, recipient: _Recipient, now: float) -> bool:
        if output.finish_reason is not None:
            return True
        if not recipient.is_patient and len(self) < CROWD:
            return True
        sent_at = recipient.sent_at.get(output.choice_index)
        if sent_at is None:
            return bool(output.token_ids)
        is_old = now - sent_at >= LONGEST_HELD_S
        return not recipient.is_patient and (is_old or len(output.token_ids) >= MOST_HELD)
