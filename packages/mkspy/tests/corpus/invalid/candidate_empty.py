# expect: no-dspy
