# expect: encoding
# vim: set fileencoding=rot13 :
import dspy
