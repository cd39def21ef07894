import gc
import json
import sys

import pytest

from zeroshot.garbage_collection import freeze_loaded_objects


def test_collections_no_longer_walk_through_what_was_there():
    earlier = [[] for _ in range(1000)]
    gc.unfreeze()
    thresholds = gc.get_threshold()
    try:
        freeze_loaded_objects()
        assert gc.get_freeze_count() > 1000
        assert not any(tracked is earlier for tracked in gc.get_objects())
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="nothing is collected any more while a function in C runs")
def test_a_large_body_is_read_with_few_collections():
    body = json.dumps([[[index]] for index in range(50_000)])
    thresholds = gc.get_threshold()

    def collections_while_reading() -> int:
        before = sum(generation["collections"] for generation in gc.get_stats())
        json.loads(body)
        return sum(generation["collections"] for generation in gc.get_stats()) - before

    usual = collections_while_reading()
    try:
        freeze_loaded_objects()
        assert collections_while_reading() * 10 < usual
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
