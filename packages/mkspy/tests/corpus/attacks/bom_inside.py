# expect: invisible
import dspy
x = '﻿'
