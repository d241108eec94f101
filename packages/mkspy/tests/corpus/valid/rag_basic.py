# run: RAG(lambda q: ["a", "b"])(question="q").response
import dspy


class RAG(dspy.Module):
    def __init__(self, search, num_docs=5):
        self.num_docs = num_docs
        self.search = search
        self.respond = dspy.ChainOfThought("context, question -> response")

    def forward(self, question):
        context = self.search(question)[: self.num_docs]
        return self.respond(context=context, question=question)
