from elpo_envs.tools import BaseTool, ToolResult


class PrimeTool(BaseTool):
    name = "next_prime"
    description = "The smallest prime number that is larger than n."
    parameters = {  # noqa: RUF012
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 10**6}},
        "required": ["n"],
    }

    def call(self, arguments):
        n = arguments["n"] + 1
        while n < 2 or any(n % d == 0 for d in range(2, int(n**0.5) + 1)):
            n += 1
        return ToolResult(str(n))
