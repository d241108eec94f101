# run: DogPicture()
import dspy


class DogPicture(dspy.Module):
    def __init__(self):
        super().__init__()
        self.breed = dspy.Predict("image_1: dspy.Image -> answer: str")
        self.compare = dspy.Predict("images: list[dspy.Image], question -> answer")

    def forward(self, url: str):
        return self.breed(image_1=dspy.Image(url=url))

    def many(self, urls):
        images = [dspy.Image(url) for url in urls]
        return self.compare(images=images, question="Which is older?").answer
