"""Tools the model can call."""

from elpo_envs.tools.base import BaseTool, Tool, ToolResult, ToolState
from elpo_envs.tools.python import PythonTool

__all__ = ["BaseTool", "PythonTool", "Tool", "ToolResult", "ToolState"]
