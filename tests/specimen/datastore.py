"""Datastore's values for property tests, what equality does not see of them, and a service that answers queries."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import grpc
from google.cloud.datastore import Entity, ExplainOptions, Key, Query
from google.cloud.datastore.helpers import GeoPoint
from google.cloud.datastore.query import And, Or, PropertyFilter
from google.cloud.datastore_v1 import types
from hypothesis import strategies as st
from proto.datetime_helpers import DatetimeWithNanoseconds

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=8)
IDS = st.integers(1, 2**63 - 1) | NAMES
PARTS = {
    "project": NAMES,
    "namespace": st.none() | st.just("") | NAMES,
    "database": st.none() | NAMES,
}
KEYS = st.builds(
    lambda pairs, **parts: Key(*(part for pair in pairs for part in pair), **parts),
    st.lists(st.tuples(NAMES, IDS), min_size=1, max_size=3),
    **PARTS,
)
PARTIAL_KEYS = st.builds(
    lambda pairs, kind, **parts: Key(*(part for pair in pairs for part in pair), kind, **parts),
    st.lists(st.tuples(NAMES, IDS), max_size=2),
    NAMES,
    **PARTS,
)
POINTS = st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180))
TIMES = st.builds(
    lambda moment, nanosecond: DatetimeWithNanoseconds(
        *moment.timetuple()[:6],
        tzinfo=UTC,
        **({"nanosecond": nanosecond} if nanosecond else {"microsecond": moment.microsecond}),
    ),
    st.datetimes(),
    st.integers(0, 10**9 - 1),
)
PROPERTIES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    NAMES,
    st.binary(max_size=8),
    st.datetimes(timezones=st.just(UTC)),
    TIMES,
    KEYS,
    POINTS,
)
MEANING = st.none() | st.integers(1, 30)
MEANINGS_OF_A_LIST = st.tuples(MEANING, st.none() | st.lists(MEANING, max_size=3)) | st.lists(MEANING, max_size=3)


@st.composite
def entities(draw, values, keys):
    """Draw an entity, some of whose properties are not indexed, or have a meaning, or had one."""
    entity = Entity(draw(st.none() | keys))
    entity.update(draw(st.dictionaries(NAMES | st.sampled_from(["__soc__", "v"]), values, max_size=4)))
    names = st.sampled_from(list(entity)) if entity else NAMES
    entity.exclude_from_indexes = draw(st.sets(names, max_size=2))
    for name in draw(st.sets(names, max_size=2)):
        meaning = draw(MEANINGS_OF_A_LIST if isinstance(entity.get(name), list) else MEANING)
        entity._meanings[name] = (meaning, entity[name] if name in entity and draw(st.booleans()) else draw(values))
    return entity


VALUES = st.recursive(
    PROPERTIES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3), entities(inner, KEYS | PARTIAL_KEYS)
    ),
    max_leaves=5,
)
FILTERS = st.recursive(
    st.one_of(
        st.builds(PropertyFilter, NAMES, st.sampled_from(list(Query.OPERATORS)), VALUES),
        st.builds(PropertyFilter, st.just("__key__"), st.sampled_from(["=", ">", "<="]), KEYS),
        st.tuples(NAMES, st.sampled_from(list(Query.OPERATORS)), VALUES),
    ),
    lambda inner: st.builds(And, st.lists(inner, max_size=3)) | st.builds(Or, st.lists(inner, max_size=3)),
    max_leaves=4,
)


class Place:
    """As much of a client as a query has to know."""

    def __init__(self, project, namespace, database):
        self.project, self.namespace, self.database = project, namespace, database


@st.composite
def queries(draw):
    """Draw a query."""
    query = Query(
        Place(**{name: draw(part) for name, part in PARTS.items()}),
        kind=draw(st.none() | NAMES),
        project=draw(st.none() | NAMES),
        namespace=draw(st.none() | NAMES),
        ancestor=draw(st.none() | KEYS),
        projection=draw(st.lists(NAMES, max_size=2)),
        order=draw(st.lists(NAMES.map("-{}".format) | NAMES, max_size=2)),
        distinct_on=draw(st.lists(NAMES, max_size=2)),
        explain_options=draw(st.none() | st.builds(ExplainOptions, analyze=st.booleans())),
    )
    # Conditions in the old form are warned of where they are given, and stay tuples.
    query._filters = draw(st.lists(FILTERS, max_size=3))
    if draw(st.booleans()):
        query.keys_only()
    return query


def anatomy(value):
    """Take a value apart: partial keys equal nothing, and queries only themselves."""
    kind = type(value)
    match value:
        case Entity():
            meanings = {
                name: (meaning, anatomy(read), name in value and value[name] is read)
                for name, (meaning, read) in value._meanings.items()
            }
            items = [(name, anatomy(item)) for name, item in value.items()]
            return kind, anatomy(value.key), items, anatomy(value.exclude_from_indexes), meanings
        case Key():
            return kind, value.flat_path, value.project, value.namespace, value.database
        case GeoPoint():
            return kind, value.latitude, value.longitude
        case DatetimeWithNanoseconds():
            return kind, value.isoformat(), value.nanosecond
        case PropertyFilter():
            return kind, value.property_name, value.operator, anatomy(value.value)
        case And() | Or():
            return kind, value.operation, [anatomy(each) for each in value.filters]
        case Query():
            client = value._client
            return (
                kind,
                (client.project, client.namespace, client.database),
                (value.project, value.namespace, value.kind, anatomy(value.ancestor)),
                [anatomy(each) for each in value.filters],
                (value.projection, value.order, value.distinct_on, value._explain_options),
            )
        case dict():
            return kind, [(key, anatomy(item)) for key, item in value.items()]
        case list() | tuple():
            return kind, [anatomy(item) for item in value]
        case float():
            return kind, value.hex()
        case datetime():
            return kind, value.isoformat()
    return kind, value


class QueryService(grpc.GenericRpcHandler):
    """Answers each query with the same entities; a context manager.

    Attributes:
        queries: the requests that came.
        address: where it listens.
    """

    def __init__(self, found):
        self.queries = []
        self._found = found
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=(self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def service(self, details):
        """Find the method that a call means."""
        if details.method != "/google.datastore.v1.Datastore/RunQuery":
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._answer, types.RunQueryRequest.deserialize, types.RunQueryResponse.serialize
        )

    def _answer(self, request, context):
        with self._lock:
            self.queries.append(request)
        batch = types.QueryResultBatch(
            entity_result_type=types.EntityResult.ResultType.FULL,
            entity_results=[types.EntityResult(entity=each) for each in self._found],
            more_results=types.QueryResultBatch.MoreResultsType.NO_MORE_RESULTS,
        )
        return types.RunQueryResponse(batch=batch)

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()
