# run: solve(question="6 * 7?").answer
import dspy

solve = dspy.ChainOfThought("question -> answer: float")


def main():
    dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", temperature=0.2, max_tokens=500))
    result = solve(question="Two dice are tossed. What is the probability that the sum equals two?")
    print(result.reasoning)
    print(result.answer)


if __name__ == "__main__":
    main()
