# run: 1
import dspy


class ToolSignature(dspy.Signature):
    """Signature for manual tool handling."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    outputs: dspy.ToolCalls = dspy.OutputField()


def weather(city: str) -> str:
    """Get weather information for a city."""
    return f"The weather in {city} is sunny"


def calculator(expression: str) -> str:
    """Evaluate a mathematical expression."""
    try:
        return f"The result is {eval(expression)}"
    except Exception as e:
        return f"Error: {e}"


tools = {"weather": dspy.Tool(weather), "calculator": dspy.Tool(calculator)}
predictor = dspy.Predict(ToolSignature)


def run(question):
    response = predictor(question=question, tools=list(tools.values()))
    return [call.execute() for call in response.outputs.tool_calls]
