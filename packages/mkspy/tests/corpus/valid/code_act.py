from dspy.predict import CodeAct


def factorial(n: int):
    if n == 1:
        return 1
    return n * factorial(n - 1)


act = CodeAct("n -> factorial_result", tools=[factorial])

if __name__ == "__main__":
    print(act(n=5).factorial_result)
