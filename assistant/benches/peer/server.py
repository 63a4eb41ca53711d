"""What a team would build in an afternoon, to measure Runwire's search against: FastAPI, sentence-transformers and FAISS.

Same model, same pages, one vector for each piece of a page under a heading; no words, no fusion, no names. It is here for
its speed, which does not depend on what the vectors of a flat index are: they are drawn, which takes a second and not
the quarter of an hour that embedding would. So do not look at its answers.
usage: server.py CORPUS PASSAGES PORT   (see README.md beside)
"""

import hashlib
import pathlib
import re
import sys

import faiss
import numpy
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODEL = ROOT / ".runwire/model"
PIECE = 700


def pieces(text):
    """Under each heading, cut at paragraphs into what the model can read."""
    for section in re.split(r"(?m)^(?=#{1,6} )", text):
        heading = section.split("\n", 1)[0].strip("# ")
        piece = ""
        for paragraph in section.split("\n\n"):
            if piece and len(piece) + len(paragraph) > PIECE:
                yield f"{heading}\n{piece}"
                piece = ""
            piece += paragraph[:PIECE] + "\n\n"
        if piece.strip():
            yield f"{heading}\n{piece}"


class Encoder:
    """sentence-transformers as it comes: torch, fp32, as many threads as cores."""

    def __init__(self):
        from sentence_transformers import SentenceTransformer, models

        # The package that the model comes from says nothing of pooling.
        encoder = models.Transformer(str(MODEL), max_seq_length=256)
        pooling = models.Pooling(encoder.get_embedding_dimension(), "mean")
        self.model = SentenceTransformer(modules=[encoder, pooling], device="cpu")

    def encode(self, text):
        return self.model.encode([text], normalize_embeddings=True, show_progress_bar=False)


class Question(BaseModel):
    query: str
    k: int = 10


def main():
    corpus, count, port = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    model = Encoder()
    passages = []
    pages = sorted(corpus.rglob("*.md"), key=lambda page: hashlib.sha256(page.name.encode()).digest())
    for page in pages:
        name = str(page.relative_to(corpus))
        passages += [(name, piece) for piece in pieces(page.read_text(errors="replace"))]
    passages = passages[:count]
    vectors = numpy.random.default_rng(1).standard_normal((len(passages), 384), dtype=numpy.float32)
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    app = FastAPI()

    @app.post("/search")
    def search(question: Question):
        scores, rows = index.search(model.encode(question.query), question.k)
        found = zip(rows[0].tolist(), scores[0].tolist())
        return {"results": [{"page": passages[row][0], "text": passages[row][1], "score": score} for row, score in found]}

    print(f"{len(passages)} passages", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


main()
