# expect: syntax
import dspy
def f(a, a):
    return a
