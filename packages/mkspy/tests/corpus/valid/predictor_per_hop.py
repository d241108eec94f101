# run: Multi()(question="q").answer
import dspy


class Multi(dspy.Module):
    def __init__(self, max_hops=2):
        super().__init__()
        self.generate_query = [dspy.ChainOfThought("context, question -> search_query") for _ in range(max_hops)]
        self.generate_answer = dspy.ChainOfThought("context, question -> answer")
        self.max_hops = max_hops

    def forward(self, question):
        context = []
        for hop in range(self.max_hops):
            query = self.generate_query[hop](context=context, question=question).search_query
            context += [query]
        pred = self.generate_answer(context=context, question=question)
        return dspy.Prediction(context=context, answer=pred.answer)
