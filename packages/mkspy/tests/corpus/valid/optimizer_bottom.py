# run: SimpleQA()(question="q").answer
import dspy
from dspy.evaluate import Evaluate
from dspy.teleprompt import BootstrapFewShot


class SimpleQA(dspy.Module):
    def __init__(self):
        super().__init__()
        self.generate_answer = dspy.ChainOfThought("question -> answer")

    def forward(self, question):
        return self.generate_answer(question=question)


def metric(example, pred, trace=None):
    return example.answer.lower() == pred.answer.lower()


if __name__ == "__main__":
    dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_key="..."))
    trainset = [dspy.Example(question="2+2?", answer="4").with_inputs("question")]
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=4)
    compiled = optimizer.compile(SimpleQA(), trainset=trainset)
    evaluate = Evaluate(devset=trainset, metric=metric, num_threads=4, display_progress=True)
    print(evaluate(compiled))
    compiled.save("qa.json")
    print(compiled(question="3+3?").answer)
    dspy.inspect_history(n=1)
