"""Function words of English: what the stop-word filter of LAMBADA takes out.

The paper (Radford et al. 2019, section 3.3) names no list. This is the usual kind: articles, pronouns, prepositions,
conjunctions, auxiliaries, and the adverbs among them.
"""

_LINES = """
a an the this that these those
i me my myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves
what which who whom whose when where why how
am is are was were be been being have has had having do does did doing will would shall should can could may might must
and but or nor if because as until while so than too very though although since unless whether
of at by for with about against between into through during before after above below to from up down in out on off over
under upon toward towards within without across behind beside beyond among around near
again further then once here there all any both each few more most other some such no not only own same just now
even ever never always also still yet
"""

STOP_WORDS: tuple[str, ...] = tuple(_LINES.split())
