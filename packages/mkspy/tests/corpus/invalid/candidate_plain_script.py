# expect: no-dspy
import json
print(json.dumps({}))
