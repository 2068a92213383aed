"""Right programs that read, print or are built in unusual ways, and wrong ones that cheat: where harnesses may differ."""

# ruff: noqa: E501  (a line for each variant)

from __future__ import annotations

from benchmarks.livecodebench_programs import Variant

# Why LiveCodeBench's harness says the opposite of our grader.
DIFFERENCES = {
    "open(0)": "builtins.open is patched after the program has taken the real one from its imports: open(0) and "
    "open('/dev/stdin') read the harness's own input",
    "binary lines": "stdin.buffer.readline gives the first line every time",
    "binary stream": "stdin.buffer is an object with read and readline only, without readlines or iteration",
    "iteration": "stdin cannot be iterated over",
    "last line": "readlines gives an empty line behind the last end of line",
    "descriptors": "only the streams of sys are replaced: what is read from or written to descriptors 0 and 1 is not the "
    "test's",
    "binary output": "stdout has no buffer",
    "closed output": "stdout's close is a function that wants an argument",
    "output at exit": "atexit functions run when the verdict is made",
    "quit": "quit is None",
    "global": "the program is the body of a function: its names are no globals",
    "future": "imports come first: a __future__ import behind them is a syntax error",
    "return": "the program is the body of a function, so return is allowed outside of one; Python says it is an error",
    "main": "the name of the module is not '__main__', and the test of it is found in the last statement only",
    "one object": "one object, or module, serves all tests, and what it keeps of the first spoils the next; ours begins "
    "each test with the program as it was loaded",
    "solution in words": "any text that holds 'class Solution' must define that class",
    "inner tuples": "a tuple is a list only if it is the whole value; ours takes both at every depth, as JSON has one "
    "kind of sequence",
    "own equality": "values are compared in the program's process, by its own __eq__: cheating, we want plain data",
    "frames": "the expected output lies in a caller's frame: cheating, ours is another process's",
    "swallowed": "the time-out is an exception in the program, which may catch it and go on",
}

_AB = "a, b = (int(word) for word in input().split())"
_CHEAT_FRAMES = """import sys

frame = sys._getframe()
while frame is not None and "gt_out" not in frame.f_locals:
    frame = frame.f_back
if frame is not None:
    print(frame.f_locals["gt_out"])
"""
_CHEAT_EQUALITY = """class Equal(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


"""

READING = (
    Variant("abc320_a", "reads sys.stdin.read", ((_AB, "import sys\na, b = map(int, sys.stdin.read().split())"),), outcome="passed"),
    Variant("abc320_a", "reads sys.stdin.buffer.read", ((_AB, "import sys\na, b = map(int, sys.stdin.buffer.read().split())"),), outcome="passed"),
    Variant("abc320_a", "reads open(0)", ((_AB, "a, b = map(int, open(0).read().split())"),), outcome="passed"),
    Variant("abc320_a", "reads open(0) as bytes", ((_AB, 'a, b = map(int, open(0, "rb").read().split())'),), outcome="passed"),
    Variant("abc320_a", "reads /dev/stdin", ((_AB, 'a, b = map(int, open("/dev/stdin").read().split())'),), outcome="passed", differs="open(0)"),
    Variant("abc320_a", "iterates over input", ((_AB, "import sys\n((a, b),) = (map(int, line.split()) for line in sys.stdin)"),), outcome="passed", differs="iteration"),
    Variant("abc320_a", "iterates over binary input", ((_AB, "import sys\n((a, b),) = (map(int, line.split()) for line in sys.stdin.buffer)"),), outcome="passed", differs="binary stream"),
    Variant("abc320_a", "input to the end", ((_AB, "lines = []\ntry:\n    while True:\n        lines.append(input())\nexcept EOFError:\n    pass\na, b = map(int, lines[0].split())"),), outcome="passed"),
    Variant("abc320_a", "readline to the end", ((_AB, "import sys\nlines = []\nwhile line := sys.stdin.readline():\n    lines.append(line)\na, b = map(int, lines[0].split())"),), outcome="passed"),
    Variant("abc320_a", "readlines, each a pair", ((_AB, "import sys\n((a, b),) = (map(int, line.split()) for line in sys.stdin.readlines())"),), outcome="passed", differs="last line"),
    Variant("abc320_a", "binary readlines", ((_AB, "import sys\na, b = map(int, sys.stdin.buffer.readlines()[0].split())"),), outcome="passed", differs="binary stream"),
    Variant("abc320_a", "one binary line", ((_AB, "import sys\na, b = map(int, sys.stdin.buffer.readline().split())"),), outcome="passed"),
    Variant("1899_c", "binary lines", (("sys.stdin.readline", "sys.stdin.buffer.readline"),), outcome="passed", differs="binary lines"),
    Variant("abc333_d", "binary lines", (("sys.stdin.readline", "sys.stdin.buffer.readline"),), outcome="passed", differs="binary lines"),
    Variant("abc343_d", "binary lines as input", (("read = sys.stdin.readline", "input = sys.stdin.buffer.readline\nread = lambda: input().rstrip()"),), outcome="passed", differs="binary lines"),
    Variant("abc343_d", "text lines as input", (("read = sys.stdin.readline", "input = sys.stdin.readline\nread = lambda: input().rstrip()"),), outcome="passed"),
    Variant("abc320_a", "reads the descriptor", ((_AB, "import os\na, b = map(int, os.read(0, 1000).split())"),), outcome="passed", differs="descriptors"),
    Variant("abc343_d", "a buffer of the descriptor", (("read = sys.stdin.readline", "import io, os\nread = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline"),), outcome="passed", differs="descriptors"),
    Variant("abc320_a", "fileinput", ((_AB, "import fileinput\n((a, b),) = (map(int, line.split()) for line in fileinput.input())"),), outcome="passed", differs="iteration"),
    Variant("abc343_b", "a thread", ahead="import threading\n\n\ndef main():\n    n = int(input())\n    for _ in range(n):\n        print(*(at + 1 for at, joined in enumerate(input().split()) if joined == '1'))\n\n\nthread = threading.Thread(target=main)\nthread.start()\nthread.join()\nexit()\n", outcome="passed"),
)  # fmt: skip

PRINTING = (
    Variant("abc320_a", "sys.stdout.write", (("print(a**b + b**a)", "import sys\nsys.stdout.write(str(a**b + b**a))"),), outcome="passed"),
    Variant("abc320_a", "binary output", (("print(a**b + b**a)", "import sys\nsys.stdout.buffer.write(b'%d' % (a**b + b**a))"),), outcome="passed", differs="binary output"),
    Variant("abc320_a", "writes to the descriptor", (("print(a**b + b**a)", "import os\nos.write(1, b'%d' % (a**b + b**a))"),), outcome="passed", differs="descriptors"),
    Variant("abc320_a", "closes its output", behind="import sys\nsys.stdout.close()\n", outcome="passed", differs="closed output"),
    Variant("abc320_a", "prints at exit", (("print(a**b + b**a)", "import atexit\natexit.register(print, a**b + b**a)"),), outcome="passed", differs="output at exit"),
    Variant("abc320_a", "a redirected print", ahead="import contextlib, io\nkept = io.StringIO()\nwith contextlib.redirect_stdout(kept):\n    print(1)\n", outcome="passed"),
    Variant("abc320_a", "a long integer as text", ahead="len(str(10**30000))\n", outcome="passed"),
    Variant("abc320_a", "notes on stderr", ahead="import sys\nprint('a note', file=sys.stderr)\n", outcome="passed"),
    Variant("abc343_b", "exit with success", behind="import sys\nsys.exit(0)\n", outcome="passed"),
    Variant("abc343_b", "exit with failure", behind="exit(1)\n", outcome="passed"),
    Variant("abc343_b", "exit with a message", behind="raise SystemExit('done')\n", outcome="passed"),
    Variant("abc343_b", "quit", behind="quit()\n", outcome="passed", differs="quit"),
)  # fmt: skip

BUILDING = (
    Variant("1873_b", "a guard in double quotes", (('if __name__ == "__main__":\n    main()', 'if (__name__ == "__main__"):\n    main()'),), outcome="passed"),
    Variant("1873_b", "a guard that is not last", behind="\nDONE = True\n", outcome="passed", differs="main"),
    Variant("1873_b", "a guard turned round", (('__name__ == "__main__"', '"__main__" == __name__'),), outcome="passed", differs="main"),
    Variant("1873_b", "a guard of another module", (('"__main__"', '"main"'),), outcome="wrong"),
    Variant("abc340_c", "a global that a function changes", (("@cache\ndef cost(x: int) -> int:\n", "calls = 0\n\n\n@cache\ndef cost(x: int) -> int:\n    global calls\n    calls += 1\n"),), outcome="passed", differs="global"),
    Variant("abc340_c", "a name by globals()", (("print(cost(", 'print(globals()["cost"]('),), outcome="passed", differs="global"),
    Variant("abc340_c", "a __future__ import", ahead="from __future__ import annotations\n\n", outcome="passed", differs="future"),
    Variant("abc322_a", "a return outside a function", behind="return\n", outcome="error", differs="return"),
    Variant("abc340_c", "several classes", (("@cache\ndef cost", "class Reader:\n    def number(self) -> int:\n        return int(input())\n\n\nclass Printer(Reader):\n    def show(self) -> None:\n        print(cost(self.number()))\n\n\n@cache\ndef cost"), ("print(cost(int(input())))", "Printer().show()")), outcome="passed"),
    Variant("abc340_c", "deep recursion", ahead="import sys\n\nsys.setrecursionlimit(10**6)\n\n\ndef depth(n: int) -> int:\n    return n and 1 + depth(n - 1)\n\n\ndepth(20_000)\n", outcome="passed"),
    Variant("2755", "a cache of the module", ahead="FEWEST: dict = {}\n\n\n", edits=(("        words = set", "        if 0 in FEWEST:\n            return FEWEST[0]\n        words = set"), ("return fewest[-1]", "FEWEST[0] = fewest[-1]\n        return FEWEST[0]")), outcome="passed", differs="one object"),
    Variant("2784", "a sum that the object keeps", (("        total = minima = 0\n", "        self.total = getattr(self, 'total', 0)\n        minima = 0\n"), ("            total += number", "            self.total += number"), ("return total", "return self.total")), outcome="passed", differs="one object"),
    Variant("2800", "a stack that the object keeps", (("        stack: list[str] = []\n", ""), ("    def minLength", "    def __init__(self) -> None:\n        self.stack: list[str] = []\n\n    def minLength"), ("        for letter", "        stack = self.stack\n        for letter")), outcome="passed", differs="one object"),
    Variant("2785", "a plain function, and the class in words", (("class Solution:\n    def semiOrderedPermutation(self, ", "# class Solution is not needed\nif True:\n    def semiOrderedPermutation("),), outcome="passed", differs="solution in words"),
    Variant("2873", "tuples in a list", (("[[x, n - x]", "[(x, n - x)"),), outcome="passed", differs="inner tuples"),
    Variant("3031", "tuples in a tuple", (("return [products[start : start + width]", "return tuple(tuple(products[start : start + width])"), ("n, width)]", "n, width))")), outcome="passed", differs="inner tuples"),
    Variant("2754", "__future__ import", ahead="from __future__ import annotations\n\n", outcome="passed", differs="future"),
    Variant("2727", "cheats by its own equality", (("return sum", "return Equal(sum"), ("60 for each in details)", "600 for each in details))")), ahead=_CHEAT_EQUALITY, outcome="invalid", differs="own equality"),
    Variant("abc320_a", "cheats by a caller's frame", instead=_CHEAT_FRAMES, outcome="wrong", differs="frames"),
    Variant("abc320_a", "goes on after the time-out", ahead="try:\n    while True:\n        pass\nexcept Exception:\n    pass\n", outcome="timeout"),
    Variant("2727", "goes on after the time-out", (("        return", "        try:\n            while True:\n                pass\n        except Exception:\n            pass\n        return"),), outcome="timeout", differs="swallowed"),
)  # fmt: skip
