"""A context as a form: what urllib makes of the same pairs, byte for byte."""

from __future__ import annotations

from urllib.parse import urlencode

from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from soc_tasks.logic.forms import decode_context, encode_context

# What travels: no NUL, and nothing that UTF-8 cannot hold.
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=30)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_texts_are_quoted_as_urllib_does(context):
    body, json_keys, list_keys = encode_context(context)
    assert (json_keys, list_keys) == ((), ())
    assert body.decode() == urlencode(context)


@given(st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.lists(TEXT, max_size=3), st.none()), max_size=5))
def test_what_goes_in_comes_out(context):
    body, json_keys, list_keys = encode_context(context)
    assert decode_context(QueryDict(body), json_keys, list_keys) == context
