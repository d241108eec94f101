# run: Generate()(question="sort").code
import dspy


class CodeGeneration(dspy.Signature):
    """Generate python code to answer the question."""

    question: str = dspy.InputField(description="The question to answer")
    code: dspy.Code["python"] = dspy.OutputField(description="The code to execute")


class Generate(dspy.Module):
    def __init__(self):
        super().__init__()
        self.write = dspy.Predict(CodeGeneration)

    def forward(self, question: str):
        result = self.write(question=question)
        return dspy.Prediction(code=result.code.code)
