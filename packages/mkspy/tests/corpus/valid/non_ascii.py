# run: Traducteur()(texte="bonjour").traduction
"""Traduit le français en allemand. 日本語も少し。"""

import dspy


class Traducteur(dspy.Module):
    def __init__(self):
        super().__init__()
        self.traduire = dspy.Predict("texte, langue -> traduction")

    def forward(self, texte, langue="Deutsch (größte Mühe)"):
        réponse = self.traduire(texte=texte, langue=langue)
        return dspy.Prediction(traduction=réponse.traduction)
