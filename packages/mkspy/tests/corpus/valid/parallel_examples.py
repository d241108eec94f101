# run: run()
import dspy

predict = dspy.Predict("question -> answer")


def run():
    parallel = dspy.Parallel(num_threads=2)
    return parallel(
        [
            (predict, dspy.Example(question="1+1").with_inputs("question")),
            (predict, dspy.Example(question="2+2").with_inputs("question")),
        ]
    )
