"""Tags: a small string map that an instance has from its start."""

from __future__ import annotations

from collections.abc import Mapping

from flask_durable.errors import InvalidArgumentError

MAX_TAGS = 50
MAX_TAG_LENGTH = 256


def check_tags(tags: object) -> dict[str, str]:
    """The tags in order of their keys, when they are allowed; none for None.

    Raises:
        InvalidArgumentError: naming what is wrong and what is allowed.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise InvalidArgumentError(f"Tags are a map of at most {MAX_TAGS} strings, not {type(tags).__name__}")
    if len(tags) > MAX_TAGS:
        raise InvalidArgumentError(f"Tags are a map of at most {MAX_TAGS} strings; here are {len(tags)}")
    for key, value in tags.items():
        for text in (key, value):
            if not isinstance(text, str) or len(text) > MAX_TAG_LENGTH:
                raise InvalidArgumentError(f"Tags are strings of at most {MAX_TAG_LENGTH} characters; {key!r:.300} is not")
            if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
                raise InvalidArgumentError(f"The tag {key!r:.300} contains a lone surrogate")
    return dict(sorted(tags.items()))
