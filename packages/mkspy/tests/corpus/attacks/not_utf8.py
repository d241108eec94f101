# expect: not-text
import dspy
x = 'ÿþ'
