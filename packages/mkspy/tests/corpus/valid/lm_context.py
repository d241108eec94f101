# run: 1
import dspy


class Mixed(dspy.Module):
    def __init__(self, small, large):
        super().__init__()
        self.small, self.large = small, large
        self.draft = dspy.Predict("topic -> draft")
        self.polish = dspy.ChainOfThought("draft -> article")
        self.polish.set_lm(large)

    def forward(self, topic):
        with dspy.context(lm=self.small):
            draft = self.draft(topic=topic).draft
        final = self.polish(draft=draft, lm=self.large)
        usage = final.get_lm_usage()
        return dspy.Prediction(article=final.article, usage=usage)
