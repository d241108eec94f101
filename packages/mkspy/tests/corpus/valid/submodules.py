# run: Pipeline()(topic="t").article
import dspy


class Outline(dspy.Signature):
    """Outline a thorough overview of a topic."""

    topic: str = dspy.InputField()
    title: str = dspy.OutputField()
    sections: list[str] = dspy.OutputField()
    section_subheadings: dict[str, list[str]] = dspy.OutputField(desc="mapping from section headings to subheadings")


class DraftSection(dspy.Signature):
    """Draft a top-level section of an article."""

    topic: str = dspy.InputField()
    section_heading: str = dspy.InputField()
    section_subheadings: list[str] = dspy.InputField()
    content: str = dspy.OutputField(desc="markdown-formatted section")


class Drafter(dspy.Module):
    def __init__(self):
        self.draft = dspy.ChainOfThought(DraftSection)

    def forward(self, topic, heading, subheadings):
        out = self.draft(topic=topic, section_heading=f"## {heading}", section_subheadings=subheadings)
        return dspy.Prediction(content=out.content)


class Pipeline(dspy.Module):
    def __init__(self):
        self.build_outline = dspy.ChainOfThought(Outline)
        self.drafter = Drafter()

    def forward(self, topic):
        outline = self.build_outline(topic=topic)
        sections = []
        for heading, subheadings in outline.section_subheadings.items():
            section = self.drafter(topic=outline.title, heading=heading, subheadings=subheadings)
            sections.append(section.content)
        return dspy.Prediction(title=outline.title, article="\n".join(sections))
