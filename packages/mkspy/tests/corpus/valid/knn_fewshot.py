# run: 1
import dspy


def build(trainset, vectorizer):
    knn = dspy.KNN(k=3, trainset=trainset, vectorizer=vectorizer)
    similar = knn(input="hello")
    few = dspy.KNNFewShot(k=3, trainset=trainset, vectorizer=vectorizer)
    return few.compile(dspy.ChainOfThought("input -> output"), trainset=trainset), similar
