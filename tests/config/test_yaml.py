import math

import pytest

from hgtrain.config.yaml import (
    MAX_VALUES,
    YamlError,
    dotted,
    parse_yaml,
    plain_scalar,
    printable,
    shown,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1E5", 100000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("+.5e+1", 5.0),
        ("8", 8),
        ("-8", -8),
        ("0", 0),
        ("-.inf", -math.inf),
        (".INF", math.inf),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
    ],
)
def test_an_unquoted_scalar_is_what_it_looks_like(text, value):
    found = plain_scalar(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "on",
        "off",
        "yes",
        "No",
        "y",
        "0o17",
        "017",
        "0x1F",
        "1:30",
        "1_000",
        "2026-11-22",
        "1e",
        "e5",
        ".",
        "nan",
        "=",
        "٣",
    ],
)
def test_everything_else_unquoted_is_text(text):
    assert plain_scalar(text) == text


def test_not_a_number_is_read():
    assert math.isnan(plain_scalar(".nan"))


def test_an_integer_of_thousands_of_digits_is_out_of_range_rather_than_a_failure():
    assert plain_scalar("9" * 5000) == math.inf


def test_a_quoted_number_is_text():
    assert parse_yaml("a: '8'").value == {"a": "8"}


def test_two_json_escapes_of_one_character_are_joined():
    assert parse_yaml('a: "\\ud83e\\udeb0"').value == {"a": "\U0001fab0"}


def test_lists_sections_and_scalars_are_plain_values():
    text = "a:\n  b: [1, {c: x}]\nd:\n- |\n  two\n  lines\n"
    assert parse_yaml(text).value == {"a": {"b": [1, {"c": "x"}]}, "d": ["two\nlines\n"]}


def test_an_empty_text_is_none():
    assert parse_yaml("# nothing\n").value is None


def test_each_key_has_the_line_of_its_name_and_each_item_its_own():
    lines = parse_yaml("a:\n  b:\n    8\n  c:\n  - x\n  - y\n").lines
    assert lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
    }


def test_the_last_of_duplicate_keys_is_kept_and_all_lines_are_told():
    document = parse_yaml("a: 1\nb: 2\na: 3\na: 4\n")
    assert document.value == {"a": 4, "b": 2}
    assert document.problems == [
        (3, "a is given twice, first on line 1 (remove one)"),
        (4, "a is given twice, first on line 1 (remove one)"),
    ]


def test_an_alias_is_a_copy_at_its_own_line():
    document = parse_yaml("a: &x {b: 1}\nc: *x\n")
    assert document.value == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.value["a"] is not document.value["c"]
    assert document.lines[("c", "b")] == 2


def test_aliases_cannot_explode():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(
        YamlError, match=f"^more than {MAX_VALUES} values, counting what aliases repeat$"
    ):
        parse_yaml("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: &x [*x]", 1, 8, r"alias \*x names nothing complete before it"),
        ("a: 1\nb: *x", 2, 4, r"alias \*x names nothing complete before it"),
        (
            "a: !!python/object:os.system x",
            1,
            4,
            r"tags are not read, got tag:yaml.org,2002:python/object:os.system",
        ),
        ("a: !!float 8", 1, 4, r"tags are not read, got tag:yaml.org,2002:float \(remove it\)"),
        ("a: ! 8", 1, 4, r"tags are not read, got ! \(remove it\)"),
        ("a: 1\n---\nb: 2", 2, 1, r"a second document begins \(remove the --- line\)"),
        ("? [a]\n: b", 1, 3, "a key must be text, got a list, a section or an alias"),
        ("a: " + "[" * 500, 1, 24, "lists and sections are nested more than 20 deep"),
        (
            "a: &x " + "[" * 15 + "]" * 15 + "\nb: [[[[[[*x]]]]]]",
            2,
            10,
            "lists and sections are nested more than 20",
        ),
        ("a: 1\nb: \0", 2, 4, "unreadable character #x0000"),
        ("a: 1\n\tb: 2", 2, 1, "not YAML: found character '.t' that cannot start any token"),
        ('a: "x', 1, 6, "not YAML: found unexpected end of stream"),
        ('a: 1\nb: "\\UFFFFFFFF"', 2, 1, "not YAML: "),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_position(text, line, column, message):
    with pytest.raises(YamlError, match=f"^{message}") as caught:
        parse_yaml(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_merge_keys_are_left_out_and_told():
    document = parse_yaml("a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n")
    assert document.value["c"] == {"d": 2}
    assert document.problems == [(3, "merge keys (<<) are not read in c (write the keys out)")]


def test_keys_that_are_not_text_are_left_out_and_told():
    document = parse_yaml("1.5: x\non: y\n")
    assert document.value == {"on": "y"}
    assert document.problems == [(1, "a key must be text, got 1.5")]


def test_a_text_with_line_breaks_and_control_characters_is_printed_on_one_line():
    assert printable("a\n\x1b\u2028\ud800é") == "a\\n\\x1b\\u2028\\ud800é"


def test_a_value_is_shown_as_a_config_would_hold_it():
    assert shown({"a": [None, True, 1e-4, "é\n"]}) == '{"a": [null, true, 0.0001, "é\\n"]}'


def test_a_long_value_is_shortened():
    assert shown("x" * 20, longest=10) == '"xxxxxx...'


def test_a_key_path_is_dotted():
    assert dotted(("model", "head", 0)) == "model.head.0"
