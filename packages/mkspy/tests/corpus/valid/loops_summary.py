# run: DocumentSummarizer()(document="a##b").summary
import dspy


class DocumentSummarizer(dspy.Module):
    def __init__(self):
        self.summarize_chapter = dspy.ChainOfThought("chapter -> summary")
        self.create_document_summary = dspy.ChainOfThought("chapter_summaries: list[str] -> document_summary")

    def forward(self, document: str):
        chapters = document.split("##")
        chapter_summaries = []
        for chapter in chapters:
            s = self.summarize_chapter(chapter=chapter).summary
            chapter_summaries.append(s)
        doc_sum = self.create_document_summary(chapter_summaries=chapter_summaries).document_summary
        return dspy.Prediction(summary=doc_sum)
