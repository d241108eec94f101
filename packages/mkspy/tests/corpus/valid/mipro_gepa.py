# run: 1
import random

import dspy


def load_data():
    rng = random.Random(0)
    data = [dspy.Example(text=str(i), label=i % 2).with_inputs("text") for i in range(20)]
    rng.shuffle(data)
    return data[:10], data[10:]


def metric_with_feedback(gold, pred, trace=None, pred_name=None, pred_trace=None):
    score = float(gold.label == pred.label)
    return dspy.Prediction(score=score, feedback="right" if score else f"expected {gold.label}")


program = dspy.ChainOfThought("text -> label: int")

if __name__ == "__main__":
    train, val = load_data()
    tp = dspy.MIPROv2(metric=lambda e, p, t=None: metric_with_feedback(e, p).score, auto="light")
    first = tp.compile(program.deepcopy(), trainset=train, max_bootstrapped_demos=2)
    gepa = dspy.GEPA(metric=metric_with_feedback, auto="light", reflection_lm=dspy.LM("openai/gpt-5"))
    second = gepa.compile(first, trainset=train, valset=val)
    second.save("./out/", save_program=True)
