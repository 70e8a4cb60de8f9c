import pytest

from circuit_script.cli.invoke import read_records
from circuit_script.errors import TrialRefused


@pytest.mark.parametrize(
    "text",
    ['[{"id": 1}, {"id": 2}]', '{"id": 1}\n{"id": 2}\n', '\n{"id": 1}\n\n{"id": 2}', '[\n{"id": 1},\n{"id": 2}]'],
)
def test_a_list_and_json_lines_are_the_same_records(tmp_path, text):
    file = tmp_path / "records.json"
    file.write_text(text)
    assert read_records(file) == [{"id": 1}, {"id": 2}]


def test_one_object_is_one_record(tmp_path):
    file = tmp_path / "records.json"
    file.write_text('{\n  "id": 1\n}')
    assert read_records(file) == [{"id": 1}]


@pytest.mark.parametrize(("text", "line"), [('{"id": 1}\n{bad\n', 2), ('[\n{"id": 1},\n]', 3), ("", 1)])
def test_what_is_not_json_is_refused_with_its_line(tmp_path, text, line):
    file = tmp_path / "records.json"
    file.write_text(text)
    with pytest.raises(TrialRefused, match=rf"records\.json:{line}: "):
        read_records(file)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrialRefused, match="No such file"):
        read_records(tmp_path / "none.json")
