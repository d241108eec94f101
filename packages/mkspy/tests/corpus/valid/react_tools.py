import dspy


def evaluate_math(expression: str) -> float:
    return dspy.PythonInterpreter({}).execute(expression)


def search_wikipedia(query: str) -> str:
    results = dspy.ColBERTv2(url="http://localhost:2017/wiki17_abstracts")(query, k=3)
    return [x["text"] for x in results]


react = dspy.ReAct("question -> answer: float", tools=[evaluate_math, search_wikipedia])

if __name__ == "__main__":
    pred = react(question="What is 9362158 divided by the year of birth of David Gregory?")
    print(pred.answer, pred.trajectory)
