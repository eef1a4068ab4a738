from __future__ import annotations

import uuid

import pytest

from flask_durable.core.ids import (
    check_instance_id,
    check_name,
    check_version,
    child_execution_id,
    child_instance_id,
    derived_uuid,
    next_execution_id,
    own_name,
)
from flask_durable.errors import InvalidArgumentError

CONTROLS = [chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)]]


def refusal(check: object, *arguments: object) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        check(*arguments)  # type: ignore[operator]
    return str(caught.value)


@pytest.mark.parametrize("instance_id", ["a", "x" * 100, "grüße 😀", "a b", "a:b,c;d%2F'\"<>&=+$!*()[]{}|^~`", "starts", "...", "a@b", "-1", "null"])
def test_these_ids_are_allowed(instance_id: str) -> None:
    assert check_instance_id(instance_id) == instance_id


@pytest.mark.parametrize(
    ("instance_id", "message"),
    [
        (None, "An instance id is a string, not NoneType"),
        (7, "An instance id is a string, not int"),
        (b"a", "An instance id is a string, not bytes"),
        ("", "An instance id has 1 to 100 characters, this one has 0"),
        ("x" * 101, "An instance id has 1 to 100 characters, this one has 101"),
        ("@a@b", "The instance id '@a@b' begins with '@', which is reserved for entities"),
        (".", "The instance id '.' is a relative path, which no URL can carry"),
        ("..", "The instance id '..' is a relative path, which no URL can carry"),
        ("Start", "The instance id 'Start' is a reserved word of the management API (docs, openapi.json, start, versions)"),
        ("openapi.json", "The instance id 'openapi.json' is a reserved word of the management API (docs, openapi.json, start, versions)"),
        ("DOCS", "The instance id 'DOCS' is a reserved word of the management API (docs, openapi.json, start, versions)"),
        ("versions", "The instance id 'versions' is a reserved word of the management API (docs, openapi.json, start, versions)"),
        (" ", "The instance id ' ' begins or ends with white space"),
        ("a ", "The instance id 'a ' begins or ends with white space"),
        ("\u00a0a", "The instance id '\\xa0a' begins or ends with white space"),
        ("a\ud800", "The instance id 'a\\ud800' contains a lone surrogate"),
    ],
)
def test_these_ids_are_refused(instance_id: object, message: str) -> None:  # EVT-7
    assert refusal(check_instance_id, instance_id) == message


@pytest.mark.parametrize("character", ["/", "\\", "#", "?", *CONTROLS])
def test_no_id_or_name_has_control_characters_or_those_that_split_urls(character: str) -> None:
    text = f"a{character}b"
    allowed = "control characters and / \\ # ? are not allowed"
    assert refusal(check_instance_id, text) == f"The instance id {text!r} contains {character!r}; {allowed}"
    assert refusal(check_name, "event", text) == f"The event name {text!r} contains {character!r}; {allowed}"


def test_names_are_checked() -> None:  # EVT-7
    assert check_name("activity", "x" * 200) == "x" * 200
    assert check_name("event", "Größe 1") == "Größe 1"
    assert refusal(check_name, "activity", 5) == "The name of an activity is a string, not int"
    assert refusal(check_name, "event", " ") == "The name of an event has 1 to 200 characters that are not all blank; got ' '"
    assert refusal(check_name, "event", "x" * 201) == f"The name of an event has 1 to 200 characters that are not all blank; got {'x' * 40!r}"
    assert refusal(check_name, "event", "@x") == "The event name '@x' begins with '@', which is reserved for entities"
    assert refusal(check_name, "event", "x\udfff") == "The event name 'x\\udfff' contains a lone surrogate"


def test_versions_are_short_texts() -> None:
    assert check_version("1.0") == "1.0"
    assert check_version("feature/x") == "feature/x"
    for wrong in ("", "x" * 101, 2, None):
        assert refusal(check_version, wrong) == f"A version is a text of 1 to 100 characters, not {wrong!r:.100}"
    assert "contains '\\x00'" in refusal(check_version, "1\0")


def test_uuids_are_valid_and_the_same_for_the_same_execution_and_number_only() -> None:  # rule 4, DET-4
    made = [derived_uuid(execution, number) for execution in ("e1", "e2") for number in range(1, 100)]
    assert len(set(made)) == len(made)
    assert derived_uuid("e1", 1) == made[0]
    assert {each.version for each in made} == {5}


def test_execution_ids_of_what_follows_are_all_different() -> None:  # rule 4, rule 31
    parent = uuid.UUID(int=1).hex
    made = [next_execution_id(parent), next_execution_id(next_execution_id(parent)), *(child_execution_id(parent, number) for number in range(1, 50))]
    assert len(set(made)) == len(made)
    assert {len(each) for each in made} == {32}
    assert next_execution_id(parent) == made[0]


def test_made_up_child_ids_differ_by_parent_generation_and_number() -> None:  # rule 40, SUB-1
    first, second = uuid.UUID(int=1).hex, next_execution_id(uuid.UUID(int=1).hex)
    assert child_instance_id("parent", second, 3) == f"parent:{second[:16]}:3"
    made = [child_instance_id(parent, execution, number) for parent in ("a", "b") for execution in (first, second) for number in (1, 2)]
    assert len(set(made)) == len(made)


def test_children_of_a_hundred_thousand_generations_have_different_ids() -> None:  # rule 40
    execution, made = uuid.UUID(int=1).hex, set()
    for _ in range(100_000):
        execution = next_execution_id(execution)
        made.add(child_instance_id("eternal", execution, 1))
    assert len(made) == 100_000


def test_ids_of_children_of_children_never_grow_too_long() -> None:  # rule 40
    longest = "x" * 100
    made = set()
    for level in range(1, 20):
        longest = check_instance_id(child_instance_id(longest, uuid.UUID(int=level).hex, 10**level))
        made.add(longest)
    assert len(made) == 19
    one, other = (child_instance_id("x" * 99 + end, uuid.UUID(int=1).hex, 1) for end in "ab")
    assert one != other


def test_a_function_is_named_after_itself_where_no_registry_is() -> None:  # REG-3
    assert own_name("pay") == "pay"
    assert own_name(check_name) == "check_name"
