import gc

from zeroshot.collection import keep_what_is_there


def test_collections_no_longer_walk_through_what_was_there():
    earlier = [[] for _ in range(1000)]
    gc.unfreeze()
    try:
        keep_what_is_there()
        assert gc.get_freeze_count() > 1000
        assert not any(tracked is earlier for tracked in gc.get_objects())
    finally:
        gc.unfreeze()
