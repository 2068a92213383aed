"""Tools the model can call."""

from elpo_envs.tools.base import BaseTool, Tool, ToolResult, ToolState
from elpo_envs.tools.calculator import CalculatorTool
from elpo_envs.tools.corpus import Corpus, CorpusError, Document
from elpo_envs.tools.python import PythonTool
from elpo_envs.tools.search import LookupTool, SearchTool
from elpo_envs.tools.submit import SubmitTool

__all__ = [
    "BaseTool",
    "CalculatorTool",
    "Corpus",
    "CorpusError",
    "Document",
    "LookupTool",
    "PythonTool",
    "SearchTool",
    "SubmitTool",
    "Tool",
    "ToolResult",
    "ToolState",
]
