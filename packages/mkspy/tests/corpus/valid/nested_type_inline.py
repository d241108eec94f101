# run: make()(query="q").result
import dspy
import pydantic


class Container:
    class Query(pydantic.BaseModel):
        text: str

    class Score(pydantic.BaseModel):
        score: float


def make():
    signature = dspy.Signature("query: str -> score: float, result: str")
    return dspy.Predict(signature)


dotted = "query: Container.Query -> score: Container.Score"
