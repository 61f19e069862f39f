"""Datastore's values as arguments: what went in comes out, and who has none imports nothing of google's."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.cloud import datastore
from google.cloud.datastore import Entity, Key, Query, helpers
from google.cloud.datastore.helpers import GeoPoint
from google.cloud.datastore.query import And, Or, PropertyFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from soc_tasks import PayloadError, defer, register_codec, startTask
from soc_tasks.logic import datastore_values, payloads
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.calls import Call, read_call, write_call
from soc_tasks.logic.payloads import dumps, loads
from tests.specimen.datastore import (
    FILTERS,
    KEYS,
    PARTIAL_KEYS,
    VALUES,
    Place,
    QueryService,
    anatomy,
    entities,
    queries,
)
from tests.specimen.functions import note

KEY = Key("School", "a", "Student", 5, project="p", namespace="n", database="d")


def carry(value):
    text = write_call(Call(function=note, args=(value,), kwargs={"x": value})).text
    call = read_call(text)
    assert anatomy(call.args[0]) == anatomy(call.kwargs["x"])
    return call.args[0]


@settings(deadline=None)
@given(
    st.one_of(KEYS, PARTIAL_KEYS, entities(VALUES, KEYS | PARTIAL_KEYS), queries(), FILTERS, VALUES)
    | st.lists(queries() | VALUES, max_size=3)
)
def test_whatever_goes_in_comes_out_the_same(value):
    assert anatomy(carry(value)) == anatomy(value)


@settings(deadline=None, max_examples=30)
@given(entities(VALUES, KEYS | PARTIAL_KEYS))
def test_the_service_is_sent_the_same_entity(entity):
    assert helpers.entity_to_protobuf(carry(entity)) == helpers.entity_to_protobuf(entity)


@settings(deadline=None, max_examples=30)
@given(entities(VALUES, KEYS))
def test_what_was_read_from_the_service_travels_as_it_is(entity):
    read = helpers.entity_from_protobuf(helpers.entity_to_protobuf(entity))
    again = carry(read)
    assert anatomy(again) == anatomy(read)
    assert helpers.entity_to_protobuf(again) == helpers.entity_to_protobuf(read)


def test_equal_where_they_can_be():
    entity = Entity(KEY, exclude_from_indexes=("essay",))
    entity.update(essay="…", where=GeoPoint(1.5, 2), inner=Entity(), friends=[KEY, None], raw=b"\x00")
    for value in (KEY, {KEY: {KEY}}, [entity], GeoPoint(1.5, 2)):
        assert carry(value) == value
    assert carry(KEY).parent == KEY.parent
    assert hash(carry(KEY)) == hash(KEY)


def test_a_deferred_function_gets_them(task_queues, called):
    defer(note, KEY, query=Query(Place("p", None, None), kind="Student"))
    task_queues.process_task_queues()
    [([key], keywords)] = called
    assert key == KEY
    assert (keywords["query"].kind, keywords["query"].project) == ("Student", "p")


def test_a_query_is_run_where_it_arrives(monkeypatch):
    """By a client that is made then; to read it asks for no credentials."""
    monkeypatch.setattr(datastore, "Client", None)
    student = Entity(KEY)
    student["name"] = "Ada"
    made = Query(Place("p", "n", "d"), kind="Student", ancestor=KEY.parent, order=["-name"])
    made.add_filter(filter=Or([PropertyFilter("name", "IN", ["Ada"]), PropertyFilter("age", ">", 5)]))
    query = carry(made)
    with pytest.raises(TypeError):
        list(query.fetch())
    monkeypatch.undo()
    with QueryService([helpers.entity_to_protobuf(student)]) as service:
        monkeypatch.setenv("DATASTORE_EMULATOR_HOST", service.address)
        datastore_values._get_client.cache_clear()
        try:
            assert list(query.fetch(limit=3)) == [student]
            assert list(carry(made).fetch(limit=3)) == [student]
            own = datastore.Client(project="p", namespace="n", database="d")
            assert list(query.fetch(limit=3, client=own)) == [student]
            original = own.query(kind="Student", ancestor=KEY.parent, order=["-name"])
            original.add_filter(filter=made.filters[0])
            list(original.fetch(limit=3))
        finally:
            assert datastore_values._get_client.cache_info().misses == 1
            query._client.close()
            datastore_values._get_client.cache_clear()
    assert len(service.queries) == 4
    assert all(request == service.queries[3] for request in service.queries)
    assert (service.queries[0].project_id, service.queries[0].database_id) == ("p", "d")


def test_what_is_asked_of_a_client_by_no_name_of_its_own_makes_none():
    datastore_values._get_client.cache_clear()
    client = datastore_values.LazyClient("p", None, None)
    assert not hasattr(client, "__array__")
    assert datastore_values._get_client.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Query(Place("p", None, None), filters=[PropertyFilter("x", "=", object())]), ".filters[0]['x']"),
        (Query(None), None),
        (And([PropertyFilter("x", "=", 1), Or([("y", "=", object())])]), ".filters[1].filters[0][2]"),
        ({"a": Entity(Key("A", "\x00", project="p"))}, "['a'].key"),
    ],
    ids=["query", "without a client", "condition", "key"],
)
def test_what_cannot_travel_is_refused_by_its_place(task_queues, value, place):
    if place is None:
        assert anatomy(carry([value])[0].filters) == anatomy(value.filters)
        return
    with pytest.raises(PayloadError) as caught:
        defer(note, report=value)
    assert f"kwargs['report']{place}" in str(caught.value)
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("x", object(), r"args\[0\]\['x'\] is of type builtins.object"),
        ("x", float("nan"), r"args\[0\]\['x'\] is nan"),
        (5, 1, r"args\[0\] has the property 5"),
        ("\x00", 1, r"a property of args\[0\] holds a NUL"),
    ],
)
def test_an_entity_that_cannot_travel(name, value, wanted):
    entity = Entity(KEY)
    entity[name] = value
    with pytest.raises(PayloadError, match=wanted):
        carry(entity)


def test_entities_nest_as_deep_as_other_values():
    value = 1
    for _ in range(31):
        entity = Entity()
        entity["inner"] = value
        value = entity
    assert anatomy(carry(value)) == anatomy(value)
    with pytest.raises(PayloadError, match="deeper than 32"):
        carry([[value]])


def test_neither_clients_nor_transactions_travel(task_queues):
    client = datastore.Client(project="p", credentials=_anonymous())
    for value in (client, client.transaction(), client.aggregation_query(client.query(kind="A"))):
        with pytest.raises(PayloadError, match=r"args\[0\] is of type google\.cloud\.datastore"):
            defer(note, value)
    task_queues.assertNumTasksEquals(0)


def _anonymous():
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials()


def test_a_context_holds_none_and_says_so_of_entities(task_queues):
    for value, wanted in ((KEY, "cannot travel as JSON"), (Entity(KEY), "is an entity, of which only")):
        with pytest.raises(PayloadError, match=wanted):
            startTask("behave", {"x": value})
    task_queues.assertNumTasksEquals(0)


def test_a_codec_goes_before(monkeypatch):
    monkeypatch.setattr(payloads, "_codecs", {})
    monkeypatch.setattr(payloads, "_codec_decoders", {})
    register_codec(Key, lambda key: list(key.flat_path), lambda parts: ("key", *parts))
    assert carry(KEY) == ("key", "School", "a", "Student", 5)


KEY_TEXT = '{"__soc__":"datastore_key","v":["p","n","d",["School","a","Student",5]]}'


def test_the_form_of_a_tag_is_fixed():
    """Calls outlive a release: what was written must stay readable."""
    entity = Entity(KEY, exclude_from_indexes=("a",))
    entity.update(a=GeoPoint(1.5, -2.0))
    entity._meanings["a"] = (9, entity["a"])
    query = Query(Place("p", None, "d"), kind="A", filters=[And([PropertyFilter("x", ">", 1)])], order=["-x"])
    known = {
        KEY_TEXT: KEY,
        f'{{"__soc__":"datastore_entity","v":[{KEY_TEXT},{{"a":{{"__soc__":"datastore_point","v":[1.5,-2.0]}}}},'
        '{"__soc__":"set","v":["a"]},{"a":[9]}]}': entity,
        '{"__soc__":"datastore_query","v":{"client":["p",null,"d"],"kind":"A","project":"p","filters":'
        '[{"__soc__":"datastore_and","v":[{"__soc__":"datastore_filter","v":["x",">",1]}]}],"order":["-x"]}}': query,
    }
    for text, value in known.items():
        assert dumps(value, more=Arguments()) == text
        assert anatomy(loads(text, Arguments())) == anatomy(value)


@pytest.mark.parametrize(
    ("tag", "inner"),
    [
        ("key", "x"),
        ("key", ["p", None, None]),
        ("key", ["p", None, None, []]),
        ("key", ["p", None, None, "Student"]),
        ("key", ["p", None, None, [5]]),
        ("key", ["p", None, None, ["A", True]]),
        ("key", ["p", 5, None, ["A", 1]]),
        ("key", [None, None, None, ["A", 1]]),
        ("key", [["p"], None, None, ["A", 1]]),
        ("entity", [None, {}]),
        ("entity", ["x", {}, []]),
        ("entity", [None, [], []]),
        ("entity", [None, {}, 5]),
        ("entity", [None, {}, [], []]),
        ("entity", [None, {}, [], {"a": [1]}]),
        ("entity", [None, {}, [], {"a": 1}]),
        ("entity", [None, {}, [], {"a": [1, 2, 3]}]),
        ("entity", [None, {}, [], {"a": []}]),
        ("point", [1.0]),
        ("point", ["a", 1.0]),
        ("point", [True, 1.0]),
        ("time", ["2026-01-01T00:00:00+00:00"]),
        ("time", ["yesterday", 0]),
        ("time", [5, 0]),
        ("time", ["2026-01-01T00:00:00+00:00", 10**9]),
        ("time", ["2026-01-01T00:00:00+00:00", "1"]),
        ("filter", ["a", "="]),
        ("filter", ["a", "LIKE", 1]),
        ("filter", [["a"], "=", 1]),
        ("filter", ["__key__", "=", 1]),
        ("and", [1]),
        ("or", [[1, 2]]),
        ("or", {"a": 1}),
        ("query", []),
        ("query", {}),
        ("query", {"client": 5}),
        ("query", {"client": ["p", None]}),
        ("query", {"client": ["p", None, None], "more": 1}),
        ("query", {"client": ["p", None, 5]}),
        ("query", {"client": ["p", None, None], "kind": 5}),
        ("query", {"client": ["p", None, None], "order": "name"}),
        ("query", {"client": ["p", None, None], "order": [5]}),
        ("query", {"client": ["p", None, None], "ancestor": 5}),
        ("query", {"client": ["p", None, None], "filters": [5]}),
        ("query", {"client": ["p", None, None], "filters": 5}),
    ],
    ids=repr,
)
def test_what_is_tagged_and_is_none(tag, inner):
    text = payloads.encode({"__soc__": f"datastore_{tag}", "v": inner})
    with pytest.raises(PayloadError):
        loads(text, Arguments())


def test_who_has_none_imports_nothing_of_googles():
    code = """
import django
from django.conf import settings
settings.configure(SECRET_KEY="x", ROOT_URLCONF="urls")
django.setup()
from soc_tasks.logic.calls import Call, read_call, write_call
from django.utils.timezone import now
text = write_call(Call(function=now, args=([1, {"a": (now(), b"x")}],), kwargs={})).text
read_call(text)
import sys
print(*(name for name in sys.modules if name.partition(".")[0] in ("google", "grpc")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The folder that google's libraries share may be there by their .pth files.
    assert not set(done.stdout.split()) & {"google.cloud.datastore", "google.api_core", "grpc"}
