"""The tools of servers that speak the Model Context Protocol (extra `mcp`)."""

from elpo_envs.tools.mcp.connection import Connection, McpServerError
from elpo_envs.tools.mcp.server import McpServer
from elpo_envs.tools.mcp.tool import McpTool, attach

__all__ = ["Connection", "McpServer", "McpServerError", "McpTool", "attach"]
