"""docs/azure.md keeps its word: orchestrators and activities are the same before and after, and no member is forgotten."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import flask_durable.azure as df

TEXT = (Path(__file__).parents[2] / "docs" / "azure.md").read_text()


def functions(language: str) -> dict[str, str]:
    """The functions of the first block of that language, as they are written."""
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    nodes = [node for node in ast.parse(found.group(1)).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(found.group(1), node) or "" for node in nodes}


def test_orchestrators_and_activities_stay_as_they_are():
    before, after = functions("py"), functions("python")
    assert before.keys() == {"charge", "pack", "process_order"}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("kind", [df.DurableOrchestrationContext, df.DurableOrchestrationClient, df.Blueprint, df.DFApp])
def test_every_public_member_is_in_the_tables(kind):
    members = [name for name in vars(kind) if not name.startswith("_")]
    assert [name for name in members if not re.search(rf"\b{name}\b", TEXT)] == []


def test_every_name_of_the_module_is_on_the_page():
    assert [name for name in df.__all__ if name not in TEXT] == ["DurableOrchestrationStatus", "NotSupportedError"]
