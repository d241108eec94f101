# expect: encoding
# -*- coding: utf-7 -*-
import dspy
