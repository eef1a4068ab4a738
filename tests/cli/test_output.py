"""What reaches a terminal: aligned, readable, and never obeyed by it."""

import json

import pytest

from flask_durable.cli.output import Table, display_width, print_fields, safe, to_json

DANGEROUS = ["\x1b[31mred\x1b[0m", "bell\x07", "over\rwritten", "two\nlines", "\x9b31m", "\u202egnp.exe", "zero\u200bwidth", "lone \ud800", "del\x7f"]


@pytest.mark.parametrize("text", DANGEROUS)
def test_nothing_in_a_text_reaches_the_terminal_that_it_would_obey(text):  # S6
    shown = safe(text)
    assert shown != text
    assert all(character.isprintable() for character in shown)


def test_an_escape_is_written_out_so_that_it_can_be_read():
    assert safe("a\x1b[2Jb\u202e") == "a\\x1b[2Jb\\u202e"


def test_ordinary_text_of_any_language_stays_as_it_is():
    assert safe("Zürich 東京 قاهرة 🎉") == "Zürich 東京 قاهرة 🎉"


@pytest.mark.parametrize("text", DANGEROUS)
def test_json_is_safe_and_means_the_same(text):  # S6
    shown = to_json({text: [text]}, indent=2)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert json.loads(shown) == {text: [text]}


def test_columns_are_as_wide_as_their_widest_cell(capsys):
    table = Table("ID", "NAME", "N")
    table.print([("a", "東京", "1"), ("bbbb", "x", "22")])
    assert capsys.readouterr().out.splitlines() == ["ID    NAME  N", "a     東京  1", "bbbb  x     22"]


def test_further_pages_have_no_second_heading(capsys):
    table = Table("ID", "NAME")
    table.print([("a", "b")])
    table.print([("cc", "d")])
    assert capsys.readouterr().out.splitlines() == ["ID  NAME", "a   b", "cc  d"]


def test_a_cell_cannot_break_out_of_its_table(capsys):  # S6
    Table("ID", "NAME").print([("a\nb", "\x1b[2J")])
    assert capsys.readouterr().out.splitlines() == ["ID      NAME", "a\\x0ab  \\x1b[2J"]


def test_fields_align_and_go_on_under_their_value(capsys):
    print_fields([("Name", "x"), ("Workers", "one\ntwo")])
    assert capsys.readouterr().out.splitlines() == ["Name     x", "Workers  one", "         two"]


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("東京", 4), ("e\u0301", 1), ("é", 1)])
def test_the_width_is_that_of_the_columns_a_terminal_uses(text, width):
    assert display_width(text) == width
