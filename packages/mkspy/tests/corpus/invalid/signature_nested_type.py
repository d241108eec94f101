# expect: signature-type
import dspy
import pydantic


class Item(pydantic.BaseModel):
    name: str


read = dspy.Predict("text -> items: list[Item]")
