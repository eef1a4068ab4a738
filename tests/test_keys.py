"""API keys: how they are made, kept and recognised, and which entries of the configuration are understood."""

from __future__ import annotations

import hmac

import pytest

from flask_durable import ConfigurationError
from flask_durable.config import load_settings
from flask_durable.keys import Permission, find_key, hash_key, make_key, parse_keys

KEY = "a-key-of-many-letters"
HASH = "sha256:" + "ab" * 16 + ":" + "cd" * 32


def entry(**changes):
    return {"name": "ci", "hash": HASH, "permissions": ["read"], **changes}


def test_a_key_is_known_again_from_its_hash():  # S8
    key = make_key()
    kept = hash_key("ci", key, [Permission.READ])
    (parsed,) = parse_keys([{"name": "ci", "hash": kept.hash, "permissions": ["read"]}])
    assert parsed == kept
    assert parsed.fits(key)
    assert not any(map(parsed.fits, (key + "x", key[:-1], "", key.upper(), "\ud800")))


def test_keys_are_long_random_and_recognisable():  # S8
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("fdk_") and len(key) >= 46 for key in keys)


def test_two_entries_of_one_key_do_not_look_alike():  # S8
    one, other = hash_key("a", KEY), hash_key("a", KEY)
    assert one.hash != other.hash
    assert one.fits(KEY)
    assert other.fits(KEY)


def test_neither_entries_nor_settings_hold_the_key():  # S7, S8
    settings = load_settings({"DURABLE_API_KEYS": [KEY]})
    assert KEY not in repr(settings)
    assert KEY not in repr(parse_keys(KEY))


def test_every_entry_is_compared_in_constant_time_whichever_fits(monkeypatch):  # S8
    keys = parse_keys([KEY, KEY + "-2", KEY + "-3"])
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append(1) or compare(one, other))
    found = [find_key(keys, [given]) for given in (KEY, KEY + "-3", "unknown")]
    assert [key and key.name for key in found] == ["key-1", "key-3", None]
    assert len(compared) == 9


def test_a_plain_key_may_do_everything_and_an_entry_only_what_it_says():  # S1
    plain, made = parse_keys([KEY, entry(permissions=["read", "event"])])
    assert plain.permissions == set(Permission)
    assert made.permissions == {Permission.READ, Permission.EVENT}


def test_entries_may_stand_in_a_dict_by_name():
    assert parse_keys({"ci": {"hash": HASH, "permissions": ["read"]}}) == parse_keys([entry()])


@pytest.mark.parametrize(
    "value",
    [
        5,
        [5],
        [None],
        "short",
        ["short"],
        ["ü" * 20],
        ["line\nfeed-and-more-letters"],
        [entry(name="")],
        [entry(name="a b")],
        [entry(name="a\r\nb")],
        [entry(name=None)],
        [entry(hash=KEY)],
        [entry(hash="md5:ab:cd")],
        [entry(hash=HASH + "0")],
        [entry(hash=HASH.replace("ab", "a", 1))],
        [entry(hash=None)],
        [entry(permissions=[])],
        [entry(permissions="read")],
        [entry(permissions=["everything"])],
        [entry(permissions=[5])],
        [entry(permissions=None)],
        [entry(key=KEY)],
        [{"name": "ci", "hash": HASH}],
        [entry(), entry()],
        {"ci": HASH},
        {"ci": entry(name="a b")},
        {KEY: {"hash": KEY, "permissions": ["read"]}},
    ],
)
def test_what_is_no_key_stops_the_app_and_is_not_shown(value):  # S7
    with pytest.raises(ConfigurationError, match="DURABLE_API_KEYS = '<hidden>' is not valid: a list of keys") as caught:
        load_settings({"DURABLE_API_KEYS": value})
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
