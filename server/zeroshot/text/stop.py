"""Finds stop strings in text that arrives in pieces."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopMatch:
    text: str
    """What comes before the stop string, of the text not yet emitted."""
    stop: str


class StopMatcher:
    """Holds back the end of the text only while it may still become a stop string.

    The longest suffix that is a proper prefix of a stop string is held; everything before it is safe to send.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = stops
        self._held = ""

    def feed(self, text: str, *, may_end: bool = True) -> str | StopMatch:
        """Text that may be sent, or the match that ends it: never one that ends where `may_end` was False.

        The stop string that ends first wins, and of two that end together the longer: wherever the text is cut.
        """
        num_held, text = len(self._held), self._held + text
        places = [(text.find(stop, max(0, num_held - len(stop) + 1)), stop) for stop in self.stops if may_end]
        found = [(start + len(stop), start, stop) for start, stop in places if start >= 0]
        if found:
            _, start, stop = min(found)
            self._held = ""
            return StopMatch(text[:start], stop)
        keep = self._num_held(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _num_held(self, text: str) -> int:
        longest = max((len(stop) - 1 for stop in self.stops), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stops):
                return length
        return 0
