"""How much of each source goes in, for the main part of a run and for its end.

About two thirds of the tokens are translation, the task this model is shown off with; one sixth are reviews, answers
and abstracts; the rest is prose.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from training import prose, tasks
from training.part import Part


@dataclass(frozen=True, slots=True)
class Passes:
    """How often each source is shown (`facts` are few and must be remembered), and how many passages of prose."""

    tatoeba: int = 2
    tatoeba_short: int = 0
    share_spelled_out: float = 0.0
    sentence_polarity: int = 6
    webquestions: int = 3
    facts: int = 20
    scitldr: int = 2
    prose_passages: int = 6000
    lead_summaries: int = 7000


# `final` is for the last third of a run, while the learning rate comes down: fewer sentence pairs, and the reviews, of
# which there are few, more often. (Hu et al. 2024, MiniCPM, section 4.2: what is seen during the decay stays best.)
# `everyday` is for going on with a finished model: the short sentences that people try first, some with `I am` for
# `I'm`, and enough of the rest that nothing is forgotten.
# `again` is for a long run from a finished model: everything in fresh wordings, and more prose. `facts` is for a last,
# short one: what has to be remembered.
MIXTURES = {
    "main": Passes(),
    "final": Passes(tatoeba=1, sentence_polarity=14),
    "everyday": Passes(
        tatoeba=0, tatoeba_short=1, share_spelled_out=0.4, sentence_polarity=6, webquestions=1, facts=8, scitldr=1,
        prose_passages=600, lead_summaries=600,
    ),
    "again": Passes(
        tatoeba=1, tatoeba_short=1, share_spelled_out=0.3, sentence_polarity=4, webquestions=1, facts=10, scitldr=1,
        prose_passages=12000, lead_summaries=1500,
    ),
    "facts": Passes(
        tatoeba=0, tatoeba_short=1, share_spelled_out=0.3, sentence_polarity=3, webquestions=1, facts=120, scitldr=1,
        prose_passages=600, lead_summaries=300,
    ),
}  # fmt: skip

# Of all passages and of all lead-sentence summaries; a play has no lead sentences.
PROSE_SHARES = {"books": (0.84, 0.84), "speeches": (0.11, 0.11), "shakespeare": (0.05, 0.0)}


def build(data: Path, passes: Passes, *, seed: int) -> list[Part]:
    """All documents of the recipe; a pure function of its arguments and the files."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{seed}-{name}")

    answers, passages = rng("answers"), rng("prose")
    parts = [
        tasks.translations(
            data,
            rng("tatoeba"),
            passes=passes.tatoeba,
            passes_short=passes.tatoeba_short,
            share_spelled_out=passes.share_spelled_out,
        ),
        tasks.sentence_reviews(data, rng("polarity"), passes=passes.sentence_polarity),
        tasks.long_reviews(data, rng("reviews")),
        tasks.web_questions(data, answers, passes=passes.webquestions),
        tasks.facts(data, answers, passes=passes.facts),
        tasks.abstracts(data, rng("scitldr"), passes=passes.scitldr),
    ]
    works = {"books": prose.books(data), "speeches": prose.speeches(data), "shakespeare": prose.plays(data)}
    for name, (passage_share, summary_share) in PROSE_SHARES.items():
        num_passages = round(passage_share * passes.prose_passages)
        num_summaries = round(summary_share * passes.lead_summaries)
        parts.append(
            prose.prose(list(works[name]), passages, name=name, num_passages=num_passages, num_summaries=num_summaries)
        )
    return parts
