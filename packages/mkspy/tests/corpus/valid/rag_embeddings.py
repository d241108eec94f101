import dspy


def load(path):
    with open(path) as f:
        return [line.strip() for line in f]


class RAG(dspy.Module):
    def __init__(self, corpus):
        super().__init__()
        embedder = dspy.Embedder("openai/text-embedding-3-small", dimensions=512)
        self.search = dspy.retrievers.Embeddings(embedder=embedder, corpus=corpus, k=5)
        self.respond = dspy.ChainOfThought("context, question -> response")

    def forward(self, question):
        context = self.search(question).passages
        return self.respond(context=context, question=question)


if __name__ == "__main__":
    rag = RAG(load("corpus.txt"))
    rag.save("rag.json")
