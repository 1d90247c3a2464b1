"""When models are loaded, shared, unloaded and tried again, as one thread sees it."""

from __future__ import annotations

import gc
import weakref

import pytest

from errors import ErrorCode, ModelUnavailable, ServiceError
from runners import model_cache
from runners.model_cache import ModelCache, give_memory_back
from tests.runners.model_cache_depot import RETRY_AFTER, TTL, Depot, FakeModel, use


@pytest.fixture
def depot() -> Depot:
    return Depot()


def test_a_model_is_loaded_on_first_use_and_kept(depot: Depot) -> None:
    cache = depot.cache()
    assert cache.loaded() == ()
    assert use(cache, "a") is use(cache, "a")
    assert depot.tried == ["a"]
    assert cache.loaded() == ("a",)
    assert (cache.holds("a"), cache.holds("b")) == (True, False)


def test_an_idle_model_is_unloaded_after_its_time_and_loaded_again(depot: Depot) -> None:
    cache = depot.cache()
    first = use(cache, "a")
    depot.now = TTL - 0.01
    assert cache.unload_idle() == []
    depot.now = TTL
    assert cache.unload_idle() == ["a"]
    assert not first.is_open
    assert cache.loaded() == ()
    assert use(cache, "a") is not first


def test_idle_time_counts_from_the_end_of_the_last_lease(depot: Depot) -> None:
    cache = depot.cache()
    with cache.lease("a"):
        depot.now = 1000
        assert cache.unload_idle() == []
    depot.now = 1000 + TTL - 1
    assert cache.unload_idle() == []
    depot.now = 1000 + TTL
    assert cache.unload_idle() == ["a"]


def test_every_use_puts_off_the_unloading(depot: Depot) -> None:
    cache = depot.cache()
    for depot.now in (100, 350, 600):
        use(cache, "a")
    depot.now = 600 + TTL - 1
    assert cache.unload_idle() == []
    depot.now = 600 + TTL
    assert cache.unload_idle() == ["a"]


def test_a_ttl_of_zero_keeps_models_for_ever(depot: Depot) -> None:
    cache = depot.cache(ttl=0)
    use(cache, "a")
    depot.now = 1e9
    assert cache.unload_idle() == []
    assert cache.unload_all() == ["a"]


def test_a_pinned_model_is_loaded_at_once_and_never_idle(depot: Depot) -> None:
    cache = depot.cache()
    cache.pin("a")
    use(cache, "b")
    assert depot.tried == ["a", "b"]
    depot.now = 1e9
    assert cache.unload_idle() == ["b"]
    assert cache.loaded() == ("a",)
    assert cache.unload_all() == ["a"]


def test_a_model_that_could_not_be_pinned_is_pinned_once_it_loads(depot: Depot) -> None:
    cache = depot.cache()
    depot.broken["a"] = ModelUnavailable("no network")
    with pytest.raises(ModelUnavailable):
        cache.pin("a")
    depot.broken.clear()
    depot.now = RETRY_AFTER
    use(cache, "a")
    depot.now = 1e9
    assert cache.unload_idle() == []


def test_unloading_everything_leaves_what_is_in_use_until_its_last_lease_ends(depot: Depot) -> None:
    cache = depot.cache()
    use(cache, "b")
    with cache.lease("a") as first:
        assert cache.unload_all() == ["b"]
        with cache.lease("a") as second:
            assert second is first
        assert first.is_open
        assert cache.loaded() == ("a",)
    assert not first.is_open
    assert cache.loaded() == ()
    use(cache, "a")
    assert cache.loaded() == ("a",), "a new load is not marked any more"


def test_a_mark_to_unload_ends_with_a_load_that_fails(depot: Depot) -> None:
    cache = depot.cache(retry_after=0)
    depot.broken["a"] = ModelUnavailable("no network")
    depot.while_loading = lambda name: cache.unload_all()
    with pytest.raises(ModelUnavailable):
        use(cache, "a")
    depot.broken.clear()
    depot.while_loading = lambda name: None
    use(cache, "a")
    assert cache.loaded() == ("a",)


def test_a_model_whose_load_was_under_way_when_all_was_unloaded_is_closed_after_its_use(depot: Depot) -> None:
    cache = depot.cache()
    depot.while_loading = lambda name: cache.unload_all()
    with cache.lease("a") as model:
        assert model.is_open
    assert not model.is_open


def test_the_error_of_a_user_of_the_model_is_not_one_of_loading(depot: Depot) -> None:
    cache = depot.cache()
    with pytest.raises(ModelUnavailable, match="mine"), cache.lease("a"):
        raise ModelUnavailable("mine")
    assert use(cache, "a").is_open
    depot.now = TTL
    assert cache.unload_idle() == ["a"], "its lease ended all the same"


def test_a_failed_load_is_remembered_for_a_while_and_then_tried_again(depot: Depot) -> None:
    cache = depot.cache()
    original = depot.broken["a"] = ModelUnavailable("No network.")
    with pytest.raises(ModelUnavailable) as first:
        use(cache, "a")
    assert first.value is original
    depot.now = 12
    with pytest.raises(ModelUnavailable) as second:
        use(cache, "a")
    assert second.value is not original
    assert second.value.code is ErrorCode.MODEL_UNAVAILABLE
    assert second.value.message == "No network. (Tried 12 s ago; tried again in 18 s.)"
    assert second.value.__cause__ is None
    assert depot.tried == ["a"]
    depot.now = RETRY_AFTER
    depot.broken.clear()
    assert use(cache, "a").is_open
    assert depot.tried == ["a", "a"]


def test_a_second_failure_is_remembered_from_its_own_time(depot: Depot) -> None:
    cache = depot.cache()
    for depot.now, message, tries in (
        (0, "first", 1),
        (RETRY_AFTER, "second", 2),
        (2 * RETRY_AFTER - 1, "second", 2),
        (2 * RETRY_AFTER, "third", 3),
    ):
        depot.broken["a"] = ModelUnavailable(message)
        with pytest.raises(ModelUnavailable, match=message if tries != 2 else "second"):
            use(cache, "a")
        assert len(depot.tried) == tries


def test_a_failure_of_another_kind_keeps_its_code(depot: Depot) -> None:
    cache = depot.cache()
    depot.broken["a"] = ServiceError(ErrorCode.UNKNOWN_MODEL, "There is no a.")
    for _ in range(2):
        with pytest.raises(ServiceError, match=r"There is no a\.") as error:
            use(cache, "a")
        assert error.value.code is ErrorCode.UNKNOWN_MODEL
    assert depot.tried == ["a"]


def test_one_model_failing_says_nothing_of_another(depot: Depot) -> None:
    cache = depot.cache()
    depot.broken["a"] = ModelUnavailable("no network")
    with pytest.raises(ModelUnavailable):
        use(cache, "a")
    assert use(cache, "b").is_open
    assert cache.loaded() == ("b",)


def test_an_unexpected_error_of_loading_is_not_remembered(depot: Depot) -> None:
    cache = depot.cache()
    depot.broken["a"] = ZeroDivisionError("a fault of ours")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            use(cache, "a")
    assert depot.tried == ["a", "a"]


def test_a_remembered_failure_holds_nothing_that_was_half_loaded(depot: Depot) -> None:
    class Half: ...

    halves: list[weakref.ref[Half]] = []

    def load(name: str) -> FakeModel:
        half = Half()
        halves.append(weakref.ref(half))
        raise ModelUnavailable("truncated")

    cache = ModelCache(load, depot.close, ttl=TTL, retry_after=RETRY_AFTER)
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            use(cache, "a")
    gc.collect()
    assert [half() for half in halves] == [None]


def test_an_unloaded_model_is_not_referred_to_any_more(depot: Depot) -> None:
    cache = depot.cache()
    model = weakref.ref(use(cache, "a"))
    depot.now = TTL
    cache.unload_idle()
    gc.collect()
    assert model() is None


def test_a_model_that_fails_to_close_is_let_go_of_and_others_are_still_unloaded(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    def close(model: FakeModel) -> None:
        if model.name == "a":
            raise RuntimeError("stuck")
        depot.close(model)

    cache = ModelCache(depot.load, close, ttl=TTL, retry_after=RETRY_AFTER)
    use(cache, "a")
    use(cache, "b")
    assert cache.unload_all() == ["a", "b"]
    assert "Closing the model a failed" in caplog.text
    assert cache.loaded() == ()


def test_memory_is_given_back_once_whenever_something_was_unloaded(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(model_cache, "give_memory_back", lambda: given.append(len(depot.closed)))
    cache = depot.cache()
    use(cache, "a")
    use(cache, "b")
    assert cache.unload_idle() == []
    assert given == []
    cache.unload_all()
    assert given == [2]
    with cache.lease("a"):
        cache.unload_all()
        assert given == [2]
    assert given == [2, 3]


def test_memory_is_given_back_where_the_c_library_cannot_trim_too(monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory_back()
    monkeypatch.setattr(model_cache, "_malloc_trim", lambda: None)
    give_memory_back()
