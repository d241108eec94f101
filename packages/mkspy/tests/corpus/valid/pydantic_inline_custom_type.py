# run: call(query="q").result
import dspy
import pydantic


class QueryResult(pydantic.BaseModel):
    text: str
    score: float


call = dspy.Predict("query: str -> result: QueryResult")
