"""Make DSPy programs from a typed task, and check programs without running them.

`from mkspy.spec import load`, `from mkspy.generate import generate`, `from mkspy.check import check` and
`from mkspy.propose import propose`: each is imported when it is used, so that a check waits for no DSPy.
"""

__all__: list[str] = []
