"""docs/pipeline.md names for every statement of the pipeline's contract a proof that exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from imserver.conf import BASE_DIR

PAGE = BASE_DIR / "docs" / "pipeline.md"
SECTIONS = [
    "1 Topics",
    "2 Batching",
    "3 Transfer",
    "4 Seq allocation",
    "5 Read seq",
    "6 Message store",
    "7 Push",
    "8 Counters",
]
COLUMNS = ["the contract says", "done by", "proved by", "differs"]


@dataclass(frozen=True)
class Row:
    section: str
    statement: str
    files: tuple[str, ...]
    proof: str

    @property
    def tests(self) -> list[str]:
        return re.findall(r"`([^`]*)`", self.proof)

    def __str__(self) -> str:
        return f"{self.section}: {self.statement}"


def rows_of(text: str) -> Iterator[Row]:
    """The rows of all tables; raises ValueError when one has not the four columns."""
    section, header = "", True
    for line in text.splitlines():
        if line.startswith("## "):
            section, header = line.removeprefix("## ").strip(), True
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if len(cells) != len(COLUMNS):
            raise ValueError(f"{section}: not four columns: {line}")
        if header:
            if cells != COLUMNS:
                raise ValueError(f"{section}: other columns than {COLUMNS}: {cells}")
            header = False
        elif set(line) - set("|- "):
            statement, files, proof, _ = cells
            yield Row(section, statement, tuple(re.findall(r"`([^`]*)`", files)), proof)


@cache
def names_in(path: str) -> frozenset[str]:
    """Names of the test functions of a module; parameters are none of their name."""
    file = BASE_DIR / path
    if not file.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return frozenset(node.name for node in body if isinstance(node, functions) and node.name.startswith("test_"))


def exists(test: str) -> bool:
    path, _, name = test.partition("::")
    return name in names_in(path)


def is_answered(row: Row) -> bool:
    """Whether a test is named."""
    return bool(row.tests)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(rows_of(PAGE.read_text(encoding="utf-8")))


def test_every_section_of_the_contract_has_a_table(rows: list[Row]) -> None:
    assert list(dict.fromkeys(row.section for row in rows)) == SECTIONS


def test_every_statement_stands_once(rows: list[Row]) -> None:
    named = [str(row) for row in rows]

    assert sorted(named) == sorted(set(named))
    assert all(row.statement for row in rows)


def test_every_row_names_a_test(rows: list[Row]) -> None:
    assert [str(row) for row in rows if not is_answered(row)] == []


def test_every_named_test_exists(rows: list[Row]) -> None:
    assert [(test, str(row)) for row in rows for test in row.tests if not exists(test)] == []


def test_every_named_file_exists(rows: list[Row]) -> None:
    missing = [(file, str(row)) for row in rows for file in row.files if not (BASE_DIR / file).is_file()]

    assert missing == []
    assert [str(row) for row in rows if not row.files] == []


def test_a_table_is_read_as_it_is_written() -> None:
    head = "## 1 Topics\n\n| the contract says | done by | proved by | differs |\n|---|---|---|---|\n"

    proved, bare = rows_of(
        head
        + "| a | `a.py`, `b.lua` | `tests/a.py::test_a`, `tests/b.py::test_b` | `x` |\n"
        + "| c | `a.py` | later |  |\n"
    )

    assert (proved.section, proved.statement, proved.files) == ("1 Topics", "a", ("a.py", "b.lua"))
    assert proved.tests == ["tests/a.py::test_a", "tests/b.py::test_b"]
    assert [is_answered(row) for row in (proved, bare)] == [True, False]
    with pytest.raises(ValueError, match="four columns"):
        list(rows_of(head + "| a | `a.py` | later |\n"))


@pytest.mark.parametrize(
    ("test", "is_there"),
    [
        ("tests/unit/test_pipeline_table.py::test_a_test_is_found_by_its_name", True),
        ("tests/unit/test_pipeline_table.py::test_a_test_is_found_by_its_name[x]", False),
        ("tests/unit/test_pipeline_table.py::exists", False),
        ("tests/unit/test_pipeline_table.py", False),
        ("tests/unit/no_such_file.py::test_a_test_is_found_by_its_name", False),
        ("tests/integration/test_pull.py::test_several_ranges_are_answered_together", True),
    ],
)
def test_a_test_is_found_by_its_name(test: str, is_there: bool) -> None:
    assert exists(test) == is_there
