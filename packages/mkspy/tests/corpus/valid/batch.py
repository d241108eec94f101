# run: run(["a"])
import dspy

classify = dspy.Predict("text -> sentiment: bool")


def run(texts):
    examples = [dspy.Example(text=text).with_inputs("text") for text in texts]
    return [pred.sentiment for pred in classify.batch(examples, num_threads=2, disable_progress_bar=True)]
