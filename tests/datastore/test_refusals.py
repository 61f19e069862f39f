"""What a DatastoreLogic refuses, with words that say what to do; nothing here needs a service."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from google.api_core.exceptions import FailedPrecondition, InvalidArgument
from google.auth.credentials import AnonymousCredentials
from google.cloud import datastore
from google.cloud.datastore.query import And, Or, PropertyFilter

from soc_tasks import ConfigurationError, DatastoreLogic
from soc_tasks.logic.batches import is_logic, resolve_logic


@pytest.fixture
def client():
    return datastore.Client(project="nowhere", credentials=AnonymousCredentials())


@pytest.fixture
def logic(client):
    return DatastoreLogic("Student", client)


def test_sources(client):
    assert is_logic(client.query(kind="Student"))
    assert isinstance(resolve_logic(client.query(kind="Student")), DatastoreLogic)
    for source, error, message in (
        (5, TypeError, "the name of a kind, or a query"),
        ("", ValueError, "no name of a kind"),
        ("__kind__", ValueError, "no name of a kind"),
        (client.query(), ValueError, "without a kind"),
        (client.query(kind="A", order=["a", "b"]), ValueError, "the order a, b; give it one"),
        (client.query(kind="A", order=["__key__", "b"]), ValueError, "give it one"),
        (client.query(kind="A", order=["-__key__"]), ValueError, "would need a composite index"),
        (client.query(kind="A", distinct_on=["a"]), ValueError, "distinct_on leaves entities out"),
    ):
        with pytest.raises(error, match=message):
            DatastoreLogic(source)
    either = client.query(kind="A")
    either.add_filter(filter=Or([PropertyFilter("a", "=", 1), PropertyFilter("b", "=", 1)]))
    with pytest.raises(ValueError, match="joins conditions by OR"):
        DatastoreLogic(either)
    both = client.query(kind="A")
    both.add_filter(filter=And([PropertyFilter("a", "=", 1), PropertyFilter("b", "=", 2)]))
    assert [(f.property_name, f.value) for f in DatastoreLogic(both).in_order().filters] == [("a", 1), ("b", 2)]


def test_options(client):
    ancestor = client.key("School", 1)
    for options, error, message in (
        ({"namespace": "not/one"}, ValueError, "is no namespace"),
        ({"namespace": ""}, ValueError, "give a client that has none"),
        ({"ancestor": "School"}, TypeError, "complete key"),
        ({"ancestor": client.key("School")}, TypeError, "complete key"),
        ({"ancestor": ancestor, "namespace": "b"}, ValueError, "The ancestor is in the namespace None"),
        ({"batch_size": 1001}, ValueError, "from 1 to 1000"),
        ({"order_field": "-"}, ValueError, "is no order"),
        ({"order_field": "__scatter__"}, ValueError, "is no order"),
        ({"order_field": "-__key__"}, ValueError, "would need a composite index"),
    ):
        with pytest.raises(error, match=message):
            DatastoreLogic("Student", client, **options)
    with pytest.raises(TypeError, match="its own namespace and ancestor"):
        DatastoreLogic(client.query(kind="A"), namespace="b")
    with pytest.raises(ValueError, match="in the order of a, and order_field is 'b'"):
        DatastoreLogic(client.query(kind="A", order=["a"]), order_field="b")


@pytest.mark.parametrize(
    "key",
    [
        "", "5", "null", "[]", '["Student"]', '["Teacher",["Teacher",1]]', '["Student",["Student"]]', '["Student",[]]',
        '["Student",["Student",0]]', '["Student",["Student",1.0]]', '["Student",["Student",true]]',
        '["Student", ["Student",1]]', '["Student",["Student",9223372036854775808]]', '["Student",["Student",1],2]',
        '["Student","age",5,["Student",1]]', "[" * 100_000, '["Student",["Student","' + "x" * 1501 + '"]]', 17, b"x",
        '["Student",["Student","\\ud800"]]',
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused_before_anything_is_asked(logic, key):
    with pytest.raises(ValueError, match="is no key of Student in the order of __key__"):
        logic.getBatchOfData(start_key=key)
    with pytest.raises(ValueError, match="is no key of Student"):
        logic.getBatchOfData(end_key=key)


@pytest.mark.parametrize(
    "value",
    [
        "[1]", "{}", '{"float":"1.50"}', '{"float":1}', '{"float":"x"}', '{"time":"2026-01-01"}', '{"bytes":"!"}',
        '{"key":["p",null,null,["Student"]]}', '{"key":["p",1,null,["Student",1]]}', '{"point":["1","2"]}', "1e400",
        '{"float":"1.5","x":1}', str(2**63), "NaN",
    ],
)  # fmt: skip
def test_values_that_no_index_holds_are_refused(logic, value):
    with pytest.raises(ValueError, match="is no key of Student in the order of age"):
        logic.getBatchOfData(start_key=f'["Student","age",{value},["Student",1]]', order="age")


def test_filters_are_checked(logic):
    for given, error, message in (
        (5, TypeError, "filter must be a dict"),
        ([("age", ">")], TypeError, "filter must be a dict"),
        ([("age", "~", 1)], ValueError, "'~' is no operator"),
        ({5: 1}, TypeError, "names properties by text"),
        ({"age": Decimal(1)}, TypeError, "The filter on age: Datastore cannot compare by Decimal"),
        ({"age": 2**63}, ValueError, "no integer of 64 bits"),
        ({"age__in": 5}, TypeError, "IN takes a list"),
        ({"age__in": []}, ValueError, "1 to 30 values, not 0"),
        ({"age__in": list(range(31))}, ValueError, "1 to 30 values, not 31"),
        ({"age": "\ud800"}, ValueError, "The filter on age"),
    ):
        with pytest.raises(error, match=message):
            logic.getBatchOfData(given)


def test_posted_filters_name_plain_properties_only(logic):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    given = {"age__gte": 5, "program": None, "address.city": "x", "at": moment, "größe__in": [1, 2]}
    assert logic.check_filter(given) == given
    assert logic.join_filters({"age": 3}, {"age": 5}) == [("age", "=", 3), ("age", "=", 5)]
    for bad in (
        {"__key__": 1}, {"__key____gt": 1}, {"a__b": 1}, {"a__b__gt": 1}, {"": 1}, {"a b": 1}, {"a-b": 1}, {"_x__": 1},
        {"a": [1]}, {"a": {"b": 1}}, {"a__in": 5}, {"a" * 501: 1}, {".a": 1}, {"a.": 1}, {5: 1}, [], "x", None,
        {f"p{i}": i for i in range(101)}, {"-a": 1}, {"a\n": 1}, {"__scatter__": 1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"posted filter|The filter on"):
            logic.check_filter(bad)


def test_an_alias_is_none_of_its_own(logic):
    assert logic.using is None
    with pytest.raises(ValueError, match="reads Datastore; give it a client"):
        logic.on("default")


def refusing(client, monkeypatch, error):
    class Service:
        def run_query(self, **arguments):
            raise error

    monkeypatch.setattr(client, "_datastore_api_internal", Service())
    return client


def test_a_missing_index_is_named_as_index_yaml(client, monkeypatch):
    refusing(client, monkeypatch, FailedPrecondition("no matching index found."))
    logic = DatastoreLogic("Student", client, ancestor=client.key("School", 1))
    with pytest.raises(ConfigurationError) as caught:
        logic.getBatchOfData({"program": 3, "house name": "x"}, order="-age")
    assert "no matching index found" in str(caught.value)
    assert "index.yaml" in str(caught.value)
    text = """\
indexes:
- kind: Student
  ancestor: yes
  properties:
  - name: "house name"
  - name: program
  - name: age
    direction: desc
"""
    assert text in str(caught.value)
    assert logic.needed_index({"program": 3, "house name": "x"}, order="-age") == text.rstrip()


def test_what_needs_no_index_asks_for_none(client, monkeypatch):
    refusing(client, monkeypatch, FailedPrecondition("The database is disabled."))
    logic = DatastoreLogic("Student", client)
    with pytest.raises(ConfigurationError) as caught:
        logic.getBatchOfData({"program": 3})
    assert "index.yaml" not in str(caught.value)
    for filter, order in (
        ({"a": 1, "b": 2}, "__key__"),
        ({}, "age"),
        ({}, "-age"),
        ({"age": 5}, "age"),
        ({"age__gt": 5}, "age"),
    ):
        assert logic.needed_index(filter, order=order) is None
    query = client.query(kind="Student", projection=["age"])
    assert DatastoreLogic(query, order_field="age").needed_index() is None
    assert "- name: age" in DatastoreLogic(query).needed_index()


def test_a_query_that_datastore_does_not_have_is_a_value_error(client, monkeypatch):
    refusing(client, monkeypatch, InvalidArgument("Only one inequality filter per query."))
    with pytest.raises(ValueError, match="cannot answer this query of Student: Only one inequality"):
        DatastoreLogic("Student", client).getBatchOfData({"age__gt": 5})


def test_keys_of_a_property_hold_its_value(logic, client):
    assert json.loads(logic.get_key_at(20, order="age")) == ["Student", "age", 20]
    assert json.loads(logic.get_key_at(client.key("Student", "x"))) == ["Student", ["Student", "x"]]
    assert logic.get_key_at("x") == logic.get_key_at(client.key("Student", "x"))
    for bad in (None, 1.5, True):
        with pytest.raises(TypeError, match="no key of Datastore"):
            logic.get_key_at(bad)
    with pytest.raises(ValueError, match="has no 'age'"):
        logic.get_key(datastore.Entity(client.key("Student", 1)), order="age")
